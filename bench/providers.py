"""Mailbox providers as sinks: what they allow and, word for word as far as it is known, what they say.

    ready("google")                                     # with its limits, in its words
    ready("yahoo", latency_s=0.05, rate_per_s=20.0)     # and another habit

Limits and replies are those that postmaster pages publish and that operators share; where nobody publishes a number
there is none here. The rates at which they lose patience are nobody's knowledge: a scenario sets its own. They
listen under names of their own below `.test`, so that no mail can ever leave for the real ones.
"""

import msgspec

from bench.temper import Profile

GOOGLE_RATE = """\
421-4.7.28 Gmail has detected an unusual rate of unsolicited mail originating\r
421-4.7.28 from your IP address. To protect our users from spam, mail sent from\r
421-4.7.28 your IP address has been temporarily rate limited. For more\r
421-4.7.28 information, go to\r
421 4.7.28  https://support.google.com/mail/?p=UnsolicitedRateLimitError - gsmtp"""
GOOGLE_UNKNOWN = """\
550-5.1.1 The email account that you tried to reach does not exist. Please try\r
550-5.1.1 double-checking the recipient's email address for typos or\r
550-5.1.1 unnecessary spaces. For more information, go to\r
550 5.1.1  https://support.google.com/mail/?p=NoSuchUser - gsmtp"""
GOOGLE_RECIPIENT = """\
450-4.2.1 The user you are trying to contact is receiving email at a rate that\r
450-4.2.1 prevents additional messages from being delivered. Please resend your\r
450-4.2.1 message at a later time. For more information, go to\r
450 4.2.1  https://support.google.com/mail/?p=ReceivingRate - gsmtp"""
YAHOO_COMPLAINTS = (
    "421 4.7.0 [TSS04] Messages from 127.0.0.1 temporarily deferred due to unexpected volume or user complaints"
    " - 4.16.55.1; see https://postmaster.yahooinc.com/error-codes"
)
YAHOO_JAPAN_BUSY = "421 4.7.0 [VS98-IP0] Messages from 127.0.0.1 temporarily deferred; please try again later"
OUTLOOK_CONNECTIONS = (
    "421 RP-003 Unfortunately, some messages from 127.0.0.1 weren't sent. Too many connections were opened from your"
    " IP address (S775)"
)
OUTLOOK_RATE = (
    "451 4.7.650 The mail server [127.0.0.1] has been temporarily rate limited due to IP reputation. For e-mail"
    " delivery information see https://postmaster.live.com (S775)"
)
PROVIDERS: dict[str, Profile] = {
    each.name: each
    for each in [
        Profile(
            name="google",
            connections_max=5,
            connections_over="421 4.7.0 Try again later, closing connection. - gsmtp",
            messages_per_connection=50,
            messages_over="421 4.7.0 Too many messages on this connection, closing. - gsmtp",
            rate_over=GOOGLE_RATE,
            unknown_reply=GOOGLE_UNKNOWN,
            deferred_reply=GOOGLE_RECIPIENT,
            size_max=157_286_400,
        ),
        Profile(
            name="microsoft",
            connections_max=5,
            connections_over="421 4.3.2 The maximum number of concurrent connections has exceeded a limit, closing"
            " transmission channel",
            messages_per_connection=50,
            rate_over="451 4.7.500 Server busy. Please try again later from [127.0.0.1]. (S77719)",
            unknown_reply="550 5.4.1 Recipient address rejected: Access denied. AS(201806281)",
            deferred_reply="451 4.7.500 Server busy. Please try again later from [127.0.0.1]. (S77719)",
            size_max=157_286_400,
        ),
        Profile(
            name="outlook",
            connections_max=5,
            connections_over=OUTLOOK_CONNECTIONS,
            messages_per_connection=50,
            rate_over=OUTLOOK_RATE,
            unknown_reply="550 5.5.0 Requested action not taken: mailbox unavailable (S2017062302).",
            deferred_reply=OUTLOOK_RATE,
            size_max=49_283_072,
        ),
        Profile(
            name="yahoo",
            messages_per_connection=20,
            messages_over="421 Max message per connection reached, closing transmission channel",
            rate_over=YAHOO_COMPLAINTS,
            unknown_reply="552 1 Requested mail action aborted, mailbox not found",
            deferred_reply="451 4.7.0 [TS01] Messages from 127.0.0.1 temporarily deferred due to user complaints",
            size_max=41_943_040,
        ),
        Profile(
            name="apple",
            connections_max=10,
            connections_over="421 4.7.1 Too many connections from your address, try again later",
            messages_per_connection=5,
            messages_over="421 4.7.0 Too many messages on this connection",
            rate_over="451 4.7.1 [BS02] Message from 127.0.0.1 temporarily deferred, try again later",
            unknown_reply="550 5.1.1 unknown or illegal alias",
            deferred_reply="451 4.7.1 [HCM1] Message temporarily deferred, try again later",
            size_max=28_311_552,
        ),
        Profile(
            name="gmx",
            connections_max=4,
            connections_over="421 4.7.0 gmx.test (mxgmx) Nemesis ESMTP Service not available: too many connections",
            messages_per_connection=20,
            messages_over="421 4.7.0 Too many messages in this session",
            rate_over="450 4.7.0 Requested mail action not taken: mailbox unavailable. Mail send limit exceeded",
            unknown_reply="550 5.1.1 Requested action not taken: mailbox unavailable",
            deferred_reply="450 4.2.0 Requested mail action not taken: mailbox unavailable. Policy restriction",
            size_max=157_286_400,
        ),
        Profile(
            name="docomo",
            connections_max=2,
            connections_over="421 4.7.0 Service not available, closing transmission channel",
            messages_per_connection=100,
            rate_over="451 4.7.1 Requested action aborted: try again later",
            unknown_reply="550 Unknown user",
            deferred_reply="452 4.3.1 Requested action not taken: insufficient system storage",
            size_max=10_485_760,
        ),
        Profile(
            name="au",
            connections_over="421 4.7.0 Service not available, closing transmission channel",
            rate_over="421 4.7.0 Service not available, closing transmission channel",
            unknown_reply="550 : User unknown",
            deferred_reply="451 4.3.0 Temporary failure, try again later",
            size_max=3_145_728,
        ),
        Profile(
            name="softbank",
            connections_over="421 4.7.0 Too many connections",
            rate_over="421 4.7.0 Service not available, try again later",
            unknown_reply="550 Invalid recipient",
            deferred_reply="451 4.3.0 Temporary failure, try again later",
            size_max=1_048_576,
        ),
        Profile(
            name="yahoo-japan",
            connections_max=2,
            connections_over=YAHOO_JAPAN_BUSY,
            messages_per_connection=20,
            messages_over="421 4.7.0 Max message per connection reached, closing transmission channel",
            rate_per_s=10.0,
            rate_over=YAHOO_JAPAN_BUSY,
            unknown_reply="550 5.1.1 Requested action not taken: mailbox unavailable",
            deferred_reply=YAHOO_JAPAN_BUSY.replace("421", "451"),
            size_max=26_214_400,
        ),
        Profile(
            name="comcast",
            connections_max=25,
            connections_over="421 4.7.0 RL000001 Too many connections from your address",
            messages_per_connection=1_000,
            rate_over="421 4.2.0 RL000001 Throttled, try again later",
            unknown_reply="550 5.1.1 Not our Customer",
            deferred_reply="452 4.2.0 RL000010 Try again later",
        ),
        Profile(
            name="orange",
            connections_max=3,
            connections_over="421 4.7.0 opme11 OFR_104 Trop de connexions, veuillez verifier votre configuration",
            messages_per_connection=100,
            rate_over="421 4.7.0 OFR_506 Trop de messages, veuillez essayer plus tard",
            unknown_reply="550 5.1.1 OFR_416 Adresse d au moins un destinataire invalide",
            deferred_reply="452 4.2.2 OFR_417 Boite du destinataire pleine",
        ),
    ]
}


def ready(name: str, **changes: object) -> Profile:
    """A profile of one's own of a provider, with other values for some fields. Raises KeyError, TypeError."""
    fields = msgspec.to_builtins(PROVIDERS[name]) | changes
    return msgspec.convert(fields, Profile)
