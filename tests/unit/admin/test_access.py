"""Who may ask the admin face."""

import pytest

from mta.admin.access import Access, Refusal
from mta.admin.address import TcpAddress, read_address

LOOPBACK = TcpAddress("127.0.0.1", 8025)
JSON = {"Content-Type": "application/json"}
LOCAL = {"Host": "127.0.0.1:8025"}


def status(refusal: Refusal | None) -> int:
    return refusal.status if refusal else 200


@pytest.mark.parametrize(
    ("authorization", "expected"),
    [
        ("Bearer right", 200),
        ("bearer  right ", 200),
        ("", 401),
        ("right", 401),
        ("Bearer", 401),
        ("Bearer wrong", 401),
        ("Bearer righ", 401),
        ("Bearer rightt", 401),
        ("Bearer r\u00edght", 401),
        ("Bearer \udcff", 401),
        ("Basic right", 401),
    ],
)
def test_the_token_opens(authorization: str, expected: int) -> None:
    """Exactly the token behind "Bearer" is let in; with it the Host does not matter."""
    access = Access(TcpAddress("192.0.2.1", 8025), "right")

    refusal = access.refusal("GET", "/queue", {"Authorization": authorization, "Host": "mail.test"})

    assert status(refusal) == expected


def test_health_needs_no_token() -> None:
    """A load balancer may ask for health, and for nothing else."""
    access = Access(LOOPBACK, "right")

    statuses = [status(access.refusal("GET", path, {})) for path in ("/health", "/metrics", "/queue", "/health/x")]

    assert statuses == [200, 401, 401, 401]


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1:8025", 200),
        ("127.0.0.1", 200),
        ("127.9.9.9:1", 200),
        ("localhost:8025", 200),
        ("LOCALHOST", 200),
        ("[::1]:8025", 200),
        ("", 403),
        ("evil.test", 403),
        ("evil.test:8025", 403),
        ("127.0.0.1.evil.test:8025", 403),
        ("localhost.evil.test", 403),
        ("192.0.2.1:8025", 403),
        ("[::1", 200),
        ("[evil]:8025", 403),
        ("2130706433", 403),
    ],
)
def test_without_a_token_the_host_must_be_this_machine(host: str, expected: int) -> None:
    """A name that somebody's DNS leads to loopback is refused, for reading as well."""
    access = Access(LOOPBACK, "")

    statuses = {status(access.refusal(method, "/queue", {"Host": host, **JSON})) for method in ("GET", "POST")}

    assert statuses == {expected}


def test_on_a_unix_socket_the_host_does_not_matter() -> None:
    """No browser reaches it."""
    access = Access(read_address("unix:/run/x.sock"), "")

    assert access.refusal("POST", "/queue/hold", JSON) is None


@pytest.mark.parametrize("method", ["POST", "DELETE", "PUT", "PATCH", "OPTIONS"])
@pytest.mark.parametrize(
    ("media_type", "expected"),
    [
        ("application/json", 200),
        ("Application/JSON; charset=utf-8", 200),
        ("", 415),
        ("text/plain", 415),
        ("application/x-www-form-urlencoded", 415),
        ("multipart/form-data; boundary=application/json", 415),
        ("text/plain; application/json", 415),
    ],
)
def test_what_changes_something_is_json(method: str, media_type: str, expected: int) -> None:
    """A form of another site's page, which a browser sends unasked, is refused."""
    access = Access(LOOPBACK, "")

    refusal = access.refusal(method, "/queue/hold", {**LOCAL, "Content-Type": media_type})

    assert status(refusal) == expected


def test_reading_needs_no_content_type() -> None:
    """GET and HEAD have no body."""
    access = Access(LOOPBACK, "")

    assert [access.refusal(method, "/queue", LOCAL) for method in ("GET", "HEAD")] == [None, None]
