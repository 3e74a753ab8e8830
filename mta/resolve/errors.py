"""Why a domain's mail hosts or a host's addresses are not known: an answer for the sender and a verdict for the queue.

The codes are those of RFC 3463 and RFC 7505. What decides between temporary and permanent is whether
*somebody who knows* said no: silence and broken servers are temporary, however long they last.
"""

from collections.abc import Sequence

from mta.model.outcome import Reply


class ResolveError(Exception):
    """There is nowhere to send to, now or at all."""

    def __init__(self, code: int, enhanced: str, text: str) -> None:
        super().__init__(text)
        self.reply = Reply(code, enhanced, text)
        """Our own words in the shape of an SMTP reply."""

    @property
    def permanent(self) -> bool:
        """True: bounce; False: try again later."""
        return self.reply.code >= 500


def bad_name(name: str) -> ResolveError:
    """The name cannot be in the DNS; no query was sent."""
    return ResolveError(550, "5.1.2", f"{name[:80]!a} is not a domain name")


def no_domain(domain: str) -> ResolveError:
    """Two answers agree that the name does not exist."""
    return ResolveError(550, "5.1.2", f"domain {domain} does not exist")


def no_mail(domain: str) -> ResolveError:
    """The domain exists, but there is neither an MX nor an address to fall back to; two answers agree."""
    return ResolveError(550, "5.1.2", f"domain {domain} has neither mail hosts nor an address")


def null_mx(domain: str) -> ResolveError:
    """The domain says that it takes no mail (RFC 7505 4.2)."""
    return ResolveError(556, "5.1.10", f"domain {domain} does not accept mail (null MX)")


def bad_hosts(domain: str) -> ResolveError:
    """MX records that name no host at all: addresses instead of names, or bytes that no host name has.

    Permanent, because it is what the domain's own servers say, and nobody else can deliver there either.
    """
    return ResolveError(550, "5.4.4", f"no MX of {domain} is the name of a host")


def loops_back(domain: str) -> ResolveError:
    """We are the domain's best mail host ourselves (RFC 5321 5.1): sending on would never end."""
    return ResolveError(
        550, "5.4.6", f"mail for {domain} loops back to this server: it is the best MX but has no route"
    )


def all_prohibited(host: str, address: str, network: str) -> ResolveError:
    """Every address of the host lies where we must not connect to.

    Permanent: the domain's servers answered, and the answer can never be used. A bounce after three days of
    silence would tell the sender of a mistyped domain less.
    """
    return ResolveError(550, "5.4.4", f"host {host} has only prohibited addresses ({address} is in {network})")


def no_address(host: str) -> ResolveError:
    """A host that MX records name has no address of a family that we send from.

    Temporary: hosts that are being renamed look like this for hours, and other MX hosts of the domain may do.
    """
    return ResolveError(451, "4.4.4", f"host {host} has no address that can be used")


def no_answer(name: str, why: str) -> ResolveError:
    """The DNS did not answer, or said that it cannot. That is never a proof that something does not exist."""
    return ResolveError(451, "4.4.3", f"cannot resolve {name}: {why}")


def verdict(errors: Sequence[ResolveError]) -> ResolveError:
    """What the failures of all hosts of a domain amount to: temporary as long as one of them is.

    `errors` is in the order in which the hosts were tried and not empty; the first that decides is returned.
    """
    return next((error for error in errors if not error.permanent), errors[0])
