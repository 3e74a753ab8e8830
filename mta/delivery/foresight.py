"""Foresight: what the next message to an address would wait for here, and which firings are in force for it.

It is asked of what a message would meet, in the same order: suspensions, firings, limits. Nothing changes by asking:
where no mail has gone yet, pool, site and destination are made for the answer alone.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from mta.delivery import reserving, tenant_limits
from mta.delivery.brakes import keys_of
from mta.delivery.destination import Destination
from mta.delivery.pool import Pool
from mta.delivery.reasons import Reasons
from mta.delivery.shortage import Told
from mta.delivery.sites import Site
from mta.handoff.placement import Destination as Placed
from mta.model.envelope import Envelope, Recipient
from mta.reporting.waiting import Explain, Explained, Outlook, Reason, Wait
from mta.resolve.errors import ResolveError
from mta.resolve.sites import MailHosts
from mta_policies.answers import SYSTEM_SOURCE, Subject, scope_key
from mta_policies.firing import Firing
from mta_policies.restraint import provider_of_key

if TYPE_CHECKING:
    from mta.delivery.dispatcher import Dispatcher

AT_ONCE = frozenset({"turn", "connecting"})
"""Reasons of whoever is next."""

OF_THE_SENDER = frozenset({"dkim-domain", "spf-domain", "path"})
"""Scopes that depend on who sends: of these all are told that some mail there may meet."""

ASKED: tuple[Callable[[Pool, Explain], Told | None], ...] = (tenant_limits.waits_of, reserving.waits_of)
"""What else may keep a message of this tenant and campaign back, beside the limits of its pool."""


class Foresight:
    """Looks things up; holds nothing."""

    def __init__(self, engine: "Dispatcher", reasons: Reasons) -> None:
        self._engine = engine
        self._reasons = reasons

    async def explain(self, question: Explain) -> Explained:
        """From each source that is asked about; nothing where the mail is another worker's."""
        engine, domain = self._engine, question.domain
        placement = engine.placement
        decided = placement.decided(domain)
        if decided is not None and placement.share(decided) is None:
            return Explained([])
        sources = [name for name in question.sources if name in engine.sources.by_name]
        try:
            placed, name, hosts, _ = await engine.domains.resolve(domain)
        except ResolveError as error:
            if decided is None and placement.asker(domain) != placement.me:
                return Explained([])
            policy = decided.policy if decided is not None else placement.policies.default
            wait = Wait(f"the mail hosts of {domain}: {error.reply}", Reason("lookup"))
            return Explained([Outlook(source, placement.me, policy.name, waits=[wait]) for source in sources])
        if engine.placement.share(placed) is None:
            return Explained([])
        return Explained([self._outlook(placed, name, hosts, source, question) for source in sources])

    def _outlook(
        self, placed: Placed, site_name: str, hosts: MailHosts | None, source: str, question: Explain
    ) -> Outlook:
        with self._pool(placed, site_name, hosts, source) as pool:
            subject = self._subject(pool, question)
            waits = [Wait(words, reason) for words, reason in self._waits(pool, subject, question)]
            keys = keys_of(pool)
            firings = [
                firing.id
                for firing in self._engine.restraints.firings.all()
                if firing.key in keys or _may_be_for(firing, subject)
            ]
            policy = pool.site.destination.policy.name
            return Outlook(source, self._engine.placement.me, policy, site_name, waits, pool.waiting, firings)

    @contextmanager
    def _pool(self, placed: Placed, site_name: str, hosts: MailHosts | None, source: str) -> Iterator[Pool]:
        """The pool that a message would go to, or one as it would be made for it."""
        engine = self._engine
        site = engine.domains.sites.get((placed.key, site_name))
        if site is not None and source in site.pools:
            yield site.pools[source]
            return
        destination = site.destination if site is not None else engine.domains.destinations.get(placed.key)
        made = None
        if destination is None:
            share = engine.placement.share(placed)
            assert share is not None, "only an owner is asked"
            destination = made = Destination(engine, placed, share, is_claimed=False)
        pool = Pool(site or Site(destination, site_name, hosts), engine.sources.by_name[source])
        try:
            yield pool
        finally:
            pool.close()
            if made is not None:
                made.close()
                engine.restraints.of_gone(made)

    def _subject(self, pool: Pool, question: Explain) -> Subject:
        """About whose mail; who sends it is not said."""
        source = pool.source
        return Subject(
            source.name,
            pool.address or source.ipv4 or source.ipv6,
            pool.site.name,
            pool.site.destination.provider,
            question.tenant,
            question.campaign,
            question.address,
        )

    def _waits(self, pool: Pool, subject: Subject, question: Explain) -> Iterator[Told]:
        engine, reasons = self._engine, self._reasons
        words, reason = reasons.of_pool(pool)
        if reason.kind not in AT_ONCE:
            yield words, reason
        if engine.suspensions.active:
            recipient = Recipient(question.address, question.domain)
            envelope = Envelope(
                "", "", [recipient], engine.clock.wall_s(), 0, tenant=question.tenant, campaign=question.campaign
            )
            suspension = engine.suspensions.of_part(pool, envelope, 0)
            if suspension is not None:
                yield reasons.kept(suspension)
        brakes = pool.site.destination.brakes
        if brakes is not None:
            for brake in brakes.of_message(pool, subject):
                if (wait_s := brake.throttle.wait_s()) > 0:
                    yield reasons.kept(brake.firing, wait_s)
        for ask in ASKED:
            if (told := ask(pool, question)) is not None:
                yield told


def _may_be_for(firing: Firing, subject: Subject) -> bool:
    """Whether a firing holds for a message, or, where that depends on who sends it, may hold."""
    if firing.scope not in OF_THE_SENDER:
        return firing.key == scope_key(firing.scope, subject)
    if provider_of_key(firing.key) != subject.provider:
        return False
    if firing.scope != "path":
        return True
    source, _, rest = firing.key.partition(" ")[2].partition(" ")
    return (
        source == (subject.source or SYSTEM_SOURCE) and rest.partition(" ")[2] == f"{subject.site} > {subject.provider}"
    )
