"""A campaign: mail that nobody has written yet, so many messages to one provider."""

from collections.abc import Mapping

from mta_policies.answers import Subject
from mta_policies.rehearsal.traffic import Mail, Stream, Traffic


def campaign(
    messages: int, domain: str, site: str, policy: str, weights: Mapping[str, int], at_s: float, per_s: float = 0.0
) -> Traffic:
    """`messages` to `domain`, handed in evenly from `at_s` on (Unix seconds), `per_s` a second (0: all at once), and
    spread over sources in proportion to their `weights`."""
    streams = [
        Stream(number, domain, site, policy, Subject(source=source, site=site))
        for number, source in enumerate(source for source, weight in weights.items() if weight)
    ]
    shares = [weights[stream.subject.source] for stream in streams]
    whole, turns = sum(shares), [0] * len(shares)
    mails = []
    due_s = at_s
    for number in range(messages):
        # Whose turn it is: smooth, so that the proportion holds over any few dozen messages.
        for at, share in enumerate(shares):
            turns[at] += share
        best = max(range(len(turns)), key=turns.__getitem__)
        turns[best] -= whole
        if per_s:
            due_s = at_s + number / per_s
        mails.append(Mail("", number, streams[best], due_s, due_s))
    return Traffic(mails, streams, at_s, due_s)
