"""Fake counters: answers workers as `mta.admin.counters` does, from a disk that the test rules."""

from collections.abc import Callable

from mta.delivery.keeping import Keeping
from mta.model.clock import Clock
from mta.reporting.counting import Answered, Snapshot, State, Told
from mta_policies.allotments import Accounts


class FakeCounters:
    """What a supervisor keeps for any number of workers, over their lives."""

    def __init__(self, clock: Clock, later: Callable[[Callable[[], None]], object]) -> None:
        """`later`: does something in another turn of the loop."""
        self._clock = clock
        self._later = later
        self.accounts = Accounts()
        self.states: dict[str, dict[str, State]] = {}
        self.told = 0
        """Requests so far."""
        self.is_stuck = False
        """The disk takes its time: nobody is answered before `go_on`."""
        self._held: list[Callable[[], None]] = []

    def serve(self, keeping: Keeping) -> None:
        """A worker starts: it hears what is kept and has somebody to tell from now on."""
        keeping.tell = lambda told: self._told(keeping, told)
        keeping.load(Snapshot({prefix: dict(states) for prefix, states in self.states.items()}))

    def _told(self, keeping: Keeping, told: Told) -> None:
        self.told += 1
        for prefix, states in told.states.items():
            known = self.states.setdefault(prefix, {})
            known.update({key: State(self._clock.wall_s(), state) for key, state in states.items()})
        answered = Answered(told.number, [self.accounts.draw(draw) for draw in told.draws])

        def answer() -> None:
            if self.is_stuck:
                self._held.append(answer)
            else:
                keeping.answered(answered)

        self._later(answer)

    def go_on(self) -> None:
        """The disk is there again."""
        self.is_stuck = False
        held, self._held = self._held, []
        for answer in held:
            answer()
