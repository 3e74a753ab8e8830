"""Rules of a simulation, drawn from a seed: for what its providers say, with actions and scopes of every kind."""

from random import Random

from mta_policies.rulebook import SCOPES

SILENCES_S = (60, 180)
"""Of probes."""

_WHEN = (
    'stage = "rcpt", code = "450"',
    'stage = "mail", code = "451"',
    'stage = "content", code = "451"',
    'code = "421"',
    'enhanced = "5.7.1"',
    'code = "4xx", text = "not (now|this)"',
)
PROVOKING = ("rcpt_4xx", "mail_4xx", "dot_4xx", "mail_421", "greets_421", "dot_5xx")
"""Whims of a `Temper` that some rule is for."""

_TRIGGERS = ("", "", '{ count = 2, in = "10m" }', "{ consecutive = 2 }", '{ share = "20%", of = 5, in = "10m" }')
_SCOPES = tuple(SCOPES)


class Rules:
    """Of one policy."""

    def __init__(self, random: Random) -> None:
        self.silences_s: dict[str, float] = {}
        """Of its rules that probe."""
        whens = random.sample(_WHEN, random.randint(1, 3))
        self.text = "".join(self._rule(random, f"r{number}", when) for number, when in enumerate(whens))

    def _rule(self, random: Random, name: str, when: str) -> str:
        actions = [self._action(random, name)]
        if random.random() < 0.2:
            actions.append('{ action = "alert" }')
        if random.random() < 0.2:
            actions.append('{ action = "defer", after = "2m" }')
        trigger = random.choice(_TRIGGERS)
        lines = [f'[[rule]]\nname = "{name}"\nwhen = {{ {when} }}\nthen = [{", ".join(actions)}]']
        return "\n".join([*lines, f"trigger = {trigger}" if trigger else "", ""])

    def _action(self, random: Random, name: str) -> str:
        scope, for_s = random.choice(_SCOPES), random.choice([30, 120, 900])
        kind = random.choice(["suspend", "suspend", "probe", "rate", "rate", "connections", "factor"])
        head = f'scope = "{scope}", for = "{for_s}s"'
        if kind == "suspend":
            return f'{{ action = "suspend", {head} }}'
        if kind == "probe":
            self.silences_s[name] = silence_s = random.choice(SILENCES_S)
            return f'{{ action = "probe", scope = "{scope}", for = "20m", silence = "{silence_s}s" }}'
        if kind == "rate":
            return f'{{ action = "slow", {head}, rate = "{random.choice([6, 20, 60])}/min" }}'
        if kind == "connections":
            return f'{{ action = "slow", {head}, connections = {random.choice([1, 2])} }}'
        return f'{{ action = "slow", {head}, factor = "50%" }}'
