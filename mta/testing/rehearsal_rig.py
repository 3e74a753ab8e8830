"""A rig for rehearsals: policies of a few lines, mail in a word, a provider that says what a test wants and watches.

rig = Rig(tmp_path, acme='[limits]\\nconnections = 5')
tally = rig.drain(rig.mails(100), Script()).of("acme")
"""

from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from zoneinfo import ZoneInfo

from mta_policies import layers
from mta_policies.answers import Answer, Subject
from mta_policies.layers import DEFAULT
from mta_policies.rehearsal.drain import Drain, Scene
from mta_policies.rehearsal.recorded import Provider
from mta_policies.rehearsal.tally import Tally
from mta_policies.rehearsal.traffic import NEVER_S, Crowd, Mail, Stream, Traffic
from mta_policies.rehearsal.ways import Map, Placed

START_S = 1_763_769_600.0  # 2025-11-22 00:00 UTC, a Saturday
CONNECT_S = 0.5
DELIVERY_S = 1.0

Say = Callable[[Mail, int, float], Answer | None]
"""Mail, how often it was tried before, time -> what is said; None: it is taken."""


def taken(mail: Mail, tries: int, now_s: float) -> Answer | None:
    """Whatever comes."""
    del mail, tries, now_s
    return None


class Script:
    """A provider: answers as it is told to, and keeps what it sees."""

    def __init__(self, say: Say = taken, opens: Callable[[float], Answer | None] = lambda now_s: None) -> None:
        self._say = say
        self._opens = opens
        self.connections: Counter[tuple[str, str]] = Counter()
        """Open now, by site and source."""
        self.connections_max: Counter[tuple[str, str]] = Counter()
        """The most of these, and under ("", source) of a source over all sites."""
        self.opened_s: list[float] = []
        self.answered: list[tuple[float, Mail]] = []
        """Every recipient that was asked about, with the time of the answer."""
        self._tries: Counter[Mail] = Counter()

    def opened(self, stream: Stream, now_s: float) -> Answer | None:
        self.opened_s.append(now_s)
        answer = self._opens(now_s)
        if answer is None:
            self.connections[stream.site, stream.subject.source] += 1
            for site in (stream.site, ""):
                way = (site, stream.subject.source)
                count = sum(n for (at, source), n in self.connections.items() if source == way[1] and site in ("", at))
                self.connections_max[way] = max(self.connections_max[way], count)
        return answer

    def closed(self, stream: Stream, now_s: float) -> None:
        del now_s
        way = (stream.site, stream.subject.source)
        self.connections[way] -= 1
        assert self.connections[way] >= 0, "closed more often than opened"

    def down_until_s(self, stream: Stream, now_s: float) -> float:
        del stream
        return now_s

    def answer(self, mail: Mail, first_s: float, now_s: float) -> Answer | None:
        del first_s
        self.answered.append((now_s, mail))
        self._tries[mail] += 1
        return self._say(mail, self._tries[mail] - 1, now_s)

    @property
    def begun_s(self) -> list[float]:
        """When each of them began, in the order of time; of messages with one recipient each transaction."""
        return sorted(at_s - DELIVERY_S for at_s, _ in self.answered)


class Done:
    """A drain that is over."""

    def __init__(self, drain: Drain, tallies: dict[str, Tally]) -> None:
        self.steps = drain.steps
        self.tallies = tallies

    def of(self, label: str) -> Tally:
        return self.tallies[label]


class Rig:
    """Policies in a folder of their own, and mail for them."""

    def __init__(self, folder: Path, **policies: str) -> None:
        """`policies`: the text of each file by its name; no shipped one is under them."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, text in {DEFAULT: "", **policies}.items():
            (folder / f"{name}.toml").write_text(text)
        self._folder = folder
        self.policy_set = layers.load(None, shipped=folder)
        self._streams: dict[tuple[str, ...], Stream] = {}
        self._messages = 0

    def load(self, local: Path) -> None:
        """Lay an admin's folder over them."""
        self.policy_set = layers.load(local, shipped=self._folder)

    def stream(self, policy: str = "acme", source: str = "out-1", domain: str = "", **subject: str) -> Stream:
        """`subject`: tenant, campaign, source_address, dkim_domain, spf_domain."""
        domain = domain or f"{policy}.test"
        key = (policy, source, domain, *subject.values())
        stream = self._streams.get(key)
        if stream is None:
            site = subject.pop("site", f"mx.{domain}")
            about = Subject(source=source, site=site, **subject)
            stream = self._streams[key] = Stream(len(self._streams), domain, site, policy, about)
        return stream

    def mails(self, count: int, stream: Stream | None = None, at_s: float = 0.0, every_s: float = 0.0) -> list[Mail]:
        """So many messages of one recipient each, from `at_s` behind the start on."""
        stream = stream or self.stream()
        mails = []
        for number in range(count):
            self._messages += 1
            due_s = START_S + at_s + number * every_s
            mails.append(Mail(f"u{self._messages}@{stream.domain}", self._messages, stream, due_s, due_s))
        return mails

    def message(self, streams: Sequence[Stream], at_s: float = 0.0) -> list[Mail]:
        """One message with a recipient in each of these streams."""
        self._messages += 1
        due_s = START_S + at_s
        return [
            Mail(f"u{self._messages}.{number}@{stream.domain}", self._messages, stream, due_s, due_s)
            for number, stream in enumerate(streams)
        ]

    def traffic(self, mails: Sequence[Mail]) -> Traffic:
        ordered = sorted(mails, key=lambda mail: (mail.due_s, mail.message))
        end_s = max((mail.due_s for mail in ordered), default=START_S)
        return Traffic(ordered, list(self._streams.values()), START_S, end_s)

    def place(self, stream: Stream) -> Placed:
        """By the policy that the stream names."""
        policy = self.policy_set.policies.get(stream.policy, self.policy_set.default)
        if policy.name == DEFAULT:
            return Placed(f"site:{stream.site}", policy, stream.site)
        return Placed(f"policy:{policy.name}", policy, policy.name)

    def drain(
        self,
        mails: Sequence[Mail],
        provider: Provider,
        until_s: float = NEVER_S,
        idle_s: float = 60.0,
        crowds: Sequence[Crowd] = (),
    ) -> Done:
        """Let it go out; `until_s` behind the start it ends."""
        scene = Scene(
            map=Map(self.place, lambda stream: self.place(stream).policy.name, lambda stream: DELIVERY_S),
            provider=provider,
            zones=ZoneInfo,
            connect_s=CONNECT_S,
            bin_s=1.0,
            idle_s=idle_s,
            until_s=START_S + until_s,
        )
        drain = Drain(scene, self.traffic(mails)._replace(crowds=crowds))
        return Done(drain, drain.run())
