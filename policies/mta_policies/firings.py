"""Firings: rules that fired and are in force. Pure: callers pass now_s, Unix seconds.

A firing is one action of one rule for one scope key ("source out-1 > google"). One that is in force already is
extended, never stacked; several rules may hold on one key, and the tightest decides. Whatever changes is a `Change`:
the server writes it to the event log and tells it to the other workers, which `apply` it. Firings survive a restart,
so their times are those of the wall clock, and that may jump: none lasts longer from now than it was made for.
"""

import heapq
import math
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar

from msgspec.structs import replace

from mta_policies.firing import Change, Firing, Mute, Reply, Snapshot, What
from mta_policies.rulebook import Action

if TYPE_CHECKING:
    from mta_policies.answers import Answer

IN_FORCE: frozenset[str] = frozenset({"slow", "suspend", "probe", "alert"})
"""Actions that last; the others (bounce, defer, category) are about one message and make no firing."""

FOR_S = {"slow": 3600.0, "suspend": 3600.0, "probe": 86400.0, "alert": 3600.0}
"""How long, where the action does not say. A probe ends by itself when all is well; a day after its last refusal it
ends in any case. An alert is not told again while it is in force."""

FIRINGS_MAX = 10_000  # a rule on recipients may fire for a whole campaign: 10 MB at most
MUTES_MAX = 1_000
ENDED_MAX = 1_000  # ended ones are remembered as long as another worker may not have heard of it
TEXT_CHARS_MAX = 300  # of the reply that is kept: what tells it from others


class Firings:
    """All that this worker, or the supervisor, knows of.

    `version` grows whenever what is in force may have become another: whoever keeps something made of it looks there.
    """

    def __init__(self) -> None:
        self.version = 0
        self._firings: dict[str, Firing] = {}
        self._by_identity: dict[tuple[str, str, str, str], str] = {}
        self._by_key: dict[str, list[str]] = {}
        self._by_rule: dict[tuple[str, str], list[str]] = {}
        self._mutes: list[Mute] = []
        self._ended: dict[str, None] = {}
        self._ends: list[tuple[float, str]] = []
        self._replaced: list[Firing] = []
        """Over before anybody looked, and another is in their place: `expire` tells of them."""
        self._latest_s = -math.inf

    def __len__(self) -> int:
        return len(self._firings)

    def __contains__(self, firing_id: str) -> bool:
        return firing_id in self._firings

    # asked

    def get(self, firing_id: str) -> Firing | None:
        """The firing of this id; None where there is none any more."""
        return self._firings.get(firing_id)

    def all(self) -> list[Firing]:
        """Muted ones too, the oldest first."""
        return sorted(self._firings.values(), key=lambda firing: (firing.since_s, firing.id))

    def mutes(self) -> list[Mute]:
        return list(self._mutes)

    def in_force(self, now_s: float) -> list[Firing]:
        """Those that have their effect now."""
        return [firing for firing in self._firings.values() if firing.is_in_force(now_s)]

    def for_keys(self, keys: Iterable[str], now_s: float) -> list[Firing]:
        """Those in force on any of these scope keys."""
        if not self._firings:
            return []
        found = [self._firings[name] for key in keys for name in self._by_key.get(key, ())]
        return [firing for firing in found if firing.is_in_force(now_s)]

    def find(self, policy: str, rule: str, action: str, key: str) -> Firing | None:
        """The one of this rule and action for this key, muted or not."""
        name = self._by_identity.get((policy, rule, action, key))
        return self._firings[name] if name is not None else None

    def of_rule(self, policy: str, rule: str) -> list[Firing]:
        """Those of this rule, for whomever, muted or not."""
        return [self._firings[name] for name in self._by_rule.get((policy, rule), ())]

    def next_end_s(self) -> float:
        """When `expire` is due at the latest: the first end of a firing or a mute; inf: there is none."""
        first = self._ends[0][0] if self._ends else math.inf
        return min(first, min((mute.until_s for mute in self._mutes), default=math.inf))

    # done by rules

    def fire(
        self,
        policy: str,
        rule: str,
        action: Action,
        key: str,
        answer: "Answer",
        now_s: float,
        new_id: str,
        *,
        scope: str = "",
        state: dict[str, float] | None = None,
        why: str = "",
    ) -> Change:
        """A rule's trigger was pulled for this scope key. The firing is in the change: a new one with `new_id`, or the
        one that is in force already, extended; with a `state`, that is a step of it. `scope`: where it is not the
        action's own; `why`: before the reply."""
        assert action.action in IN_FORCE, action.action
        self._look_at_clock(now_s)
        length_s = _length_s(action)
        reply = Reply(answer.code, answer.enhanced, answer.text[:TEXT_CHARS_MAX], answer.stage, answer.host)
        why = " ".join(filter(None, (why, str(reply.code), reply.enhanced, reply.text)))
        known = self.find(policy, rule, action.action, key)
        if known is not None and known.until_s > now_s:
            until_s = max(known.until_s, now_s + length_s)
            is_longer = until_s - known.until_s >= length_s / 10
            what: What = "stepped" if state is not None else "extended" if is_longer else "hit"
            firing = replace(
                known,
                until_s=until_s,
                length_s=max(until_s - now_s, length_s),
                effect=action,
                reply=reply,
                hits=known.hits + 1,
                last_s=now_s,
                state=known.state if state is None else state,
            )
        else:
            if known is not None:
                self._replace(known)
            what = "fired"
            firing = Firing(
                id=new_id,
                policy=policy,
                rule=rule,
                action=action.action,
                scope=scope or action.scope,
                key=key,
                since_s=now_s,
                until_s=now_s + length_s,
                length_s=length_s,
                effect=action,
                reply=reply,
                last_s=now_s,
                state=state or {},
            )
            firing = self._with_mutes(firing)
        self._put(firing)
        return Change(what, now_s, firing, by="rule", why=why)

    def step(
        self,
        firing_id: str,
        state: dict[str, float],
        now_s: float,
        why: str,
        effect: Action | None = None,
        *,
        has_failed: bool = False,
    ) -> Change | None:
        """A recovery went on by one step, forward or back; None where the firing is gone. `effect`: where another than
        before holds now; `has_failed`: where it is not over, it lasts from now on for as long as when it fired."""
        self._look_at_clock(now_s)
        firing = self._firings.get(firing_id)
        if firing is None:
            return None
        firing = replace(firing, state=state, effect=effect or firing.effect)
        if has_failed and firing.until_s > now_s:
            length_s = _length_s(firing.effect)
            until_s = max(firing.until_s, now_s + length_s)
            firing = replace(firing, until_s=until_s, length_s=max(until_s - now_s, length_s))
        self._put(firing)
        return Change("stepped", now_s, firing, by="rule", why=why)

    def end(self, firing_id: str, now_s: float, why: str) -> Change | None:
        """A recovery is done: all is well; None where the firing is gone."""
        firing = self._remove(firing_id)
        return Change("ended", now_s, firing, by="rule", why=why) if firing else None

    def expire(self, now_s: float) -> list[Change]:
        """End what is over. To be called when `next_end_s` comes, and now and then for clocks that were set back."""
        self._look_at_clock(now_s)
        ended, self._replaced = self._replaced, []
        while first := self._pop_over(now_s):
            self._remove(first.id)
            ended.append(first)
        changes = [Change("ended", now_s, firing, by="clock", why="its time is over") for firing in ended]
        over = [mute for mute in self._mutes if mute.until_s <= now_s]
        if over:
            self._mutes = [mute for mute in self._mutes if mute.until_s > now_s]
            self.version += 1
            changes += [Change("unmuted", now_s, mute=mute, by="clock", why="its time is over") for mute in over]
        return changes

    # done by commands

    def cancel(self, firing_id: str, now_s: float, who: str, why: str = "") -> Change | None:
        """End it now; the rule may fire again. None where there is none of this id."""
        firing = self._remove(firing_id)
        return Change("cancelled", now_s, firing, by=f"command: {who}", why=why) if firing else None

    def extend(self, firing_id: str, until_s: float, now_s: float, who: str, why: str = "") -> Change | None:
        """Let it end then instead, later or earlier. None where there is none of this id."""
        self._look_at_clock(now_s)
        firing = self._firings.get(firing_id)
        if firing is None:
            return None
        by = f"command: {who}"
        firing = replace(firing, until_s=until_s, length_s=max(0.0, until_s - now_s), by=by)
        self._put(firing)
        return Change("extended", now_s, firing, by=by, why=why)

    def mute(self, name: str, until_s: float, now_s: float, who: str, why: str = "") -> Change:
        """What this rule ("NAME" or "POLICY/NAME"), or the firing of this id, does has no effect until then; a time
        that is over unmutes it. Firings are still made and seen."""
        self._look_at_clock(now_s)
        firing = self._firings.get(name)
        by = f"command: {who}"
        length_s = max(0.0, until_s - now_s)
        if firing is not None:
            mute = Mute(firing.rule, until_s, length_s, firing.policy, firing.key, by)
        else:
            policy, _, rule = name.rpartition("/")
            mute = Mute(rule, until_s, length_s, policy, by=by)
        self._set_mute(mute)
        return Change("muted" if until_s > now_s else "unmuted", now_s, mute=mute, by=by, why=why)

    # told by others

    def apply(self, change: Change, now_s: float) -> bool:
        """Something that was done elsewhere. -> whether it is news here."""
        self._look_at_clock(now_s)
        before = self.version
        if change.mute is not None:
            self._set_mute(_clamped_mute(change.mute, now_s) if change.what == "muted" else change.mute)
        elif change.firing is not None:
            if change.what in ("ended", "cancelled"):
                self._remove(change.firing.id)
            else:
                self._merge(_clamped(change.firing, now_s), is_said=change.by.startswith("command"))
        return self.version != before

    def dump(self) -> Snapshot:
        return Snapshot(tuple(self.all()), tuple(self._mutes))

    def load(self, snapshot: Snapshot, now_s: float) -> None:
        """Go on with what was dumped, beside what is known already. What is over meanwhile is ended by `expire`."""
        self._look_at_clock(now_s)
        for mute in snapshot.mutes:
            self._set_mute(_clamped_mute(mute, now_s))
        for firing in snapshot.firings:
            self._merge(_clamped(firing, now_s), is_said=False)

    # kept

    def _put(self, firing: Firing) -> None:
        known = self._firings.get(firing.id)
        self.version += 1
        self._firings[firing.id] = firing
        if known is None:
            self._by_identity[firing.identity] = firing.id
            self._by_key.setdefault(firing.key, []).append(firing.id)
            self._by_rule.setdefault((firing.policy, firing.rule), []).append(firing.id)
            heapq.heappush(self._ends, (firing.until_s, firing.id))
            if len(self._firings) > FIRINGS_MAX:
                self._drop_first()
        elif firing.until_s < known.until_s:
            heapq.heappush(self._ends, (firing.until_s, firing.id))
        if len(self._ends) > 2 * len(self._firings) + 16:
            self._order_ends()

    def _order_ends(self) -> None:
        self._ends = [(firing.until_s, name) for name, firing in self._firings.items()]
        heapq.heapify(self._ends)

    def _drop_first(self) -> None:
        """Too many: the one that ends first goes, quietly; its rule fires again where it is needed."""
        if first := self._pop_over(math.inf):
            self._remove(first.id)

    def _pop_over(self, now_s: float) -> Firing | None:
        """The one that ends first, if that is by now, taken out of the ends."""
        while self._ends and self._ends[0][0] <= now_s:
            until_s, name = heapq.heappop(self._ends)
            firing = self._firings.get(name)
            if firing is None:
                continue
            if firing.until_s <= until_s:
                return firing
            heapq.heappush(self._ends, (firing.until_s, name))
        return None

    def _remove(self, firing_id: str) -> Firing | None:
        firing = self._firings.pop(firing_id, None)
        if firing is None:
            return None
        self.version += 1
        del self._by_identity[firing.identity]
        _take_out(self._by_key, firing.key, firing_id)
        _take_out(self._by_rule, (firing.policy, firing.rule), firing_id)
        self._ended[firing_id] = None
        if len(self._ended) > ENDED_MAX:
            del self._ended[next(iter(self._ended))]
        return firing

    def _replace(self, firing: Firing) -> None:
        """It is over, and another one is put in its place."""
        self._remove(firing.id)
        self._replaced.append(firing)
        del self._replaced[:-ENDED_MAX]

    def _merge(self, firing: Firing, *, is_said: bool) -> None:
        """Takes what another knows of a firing. `is_said`: a command set its end; else the later end stands."""
        if firing.id in self._ended:
            return
        known = self._firings.get(self._by_identity.get(firing.identity, ""))
        if known is not None and known.until_s <= firing.since_s:
            self._replace(known)
            known = None
        if known is None:
            self._put(self._with_mutes(firing))
            return
        later = firing if firing.last_s >= known.last_s else known
        end = firing if is_said or firing.until_s > known.until_s else known
        first = min(firing, known, key=lambda each: (each.since_s, each.id))  # two fired it at once: all keep the same
        merged = replace(
            later,
            id=first.id,
            since_s=first.since_s,
            until_s=end.until_s,
            length_s=end.length_s,
            by=end.by,
            hits=max(firing.hits, known.hits),
            state=max(firing.state, known.state, key=lambda state: state.get("since_s", 0.0)),
            muted_until_s=known.muted_until_s,
        )
        if merged == known:
            return
        if merged.id != known.id:
            self._remove(known.id)
        self._put(merged)

    def _set_mute(self, mute: Mute) -> None:
        """In the place of one for the same; one that is over is none."""
        rest = [
            each for each in self._mutes if (each.policy, each.rule, each.key) != (mute.policy, mute.rule, mute.key)
        ]
        mutes = [*rest, mute] if mute.length_s > 0 else rest
        if mutes == self._mutes:
            return
        self._mutes = mutes[-MUTES_MAX:]
        self.version += 1
        for firing in list(self._firings.values()):
            if mute.is_for(firing):
                self._firings[firing.id] = self._with_mutes(firing)

    def _with_mutes(self, firing: Firing) -> Firing:
        until_s = max((mute.until_s for mute in self._mutes if mute.is_for(firing)), default=0.0)
        return replace(firing, muted_until_s=until_s)

    def _look_at_clock(self, now_s: float) -> None:
        """Where the clock was set back, nothing lasts longer from now than it was made for."""
        if now_s < self._latest_s:
            for firing in list(self._firings.values()):
                clamped = _clamped(firing, now_s)
                if clamped is not firing:
                    self._put(clamped)
            for mute in self._mutes:
                clamped_mute = _clamped_mute(mute, now_s)
                if clamped_mute is not mute:
                    self._set_mute(clamped_mute)
        self._latest_s = now_s


def _length_s(action: Action) -> float:
    return action.for_s or FOR_S[action.action]


_Key = TypeVar("_Key")


def _take_out(index: dict[_Key, list[str]], key: _Key, name: str) -> None:
    names = index[key]
    names.remove(name)
    if not names:
        del index[key]


def _clamped(firing: Firing, now_s: float) -> Firing:
    if firing.until_s <= now_s + firing.length_s:
        return firing
    return replace(firing, until_s=now_s + firing.length_s, since_s=min(firing.since_s, now_s))


def _clamped_mute(mute: Mute, now_s: float) -> Mute:
    return mute if mute.until_s <= now_s + mute.length_s else replace(mute, until_s=now_s + mute.length_s)
