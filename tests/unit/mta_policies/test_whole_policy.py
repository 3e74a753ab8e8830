"""A policy that has every table, as admins are told that they may write it: all is read, and means what it says."""

from pathlib import Path

from mta_policies import layers
from mta_policies.schema import Quota
from mta_policies.units import MinuteWindow, Rate

TEXT = """\
title  = "Google"
match  = { mx = ["*.google.com", "*.googlemail.com"], domains = ["gmail.com", "googlemail.com"] }
owners = 1                            # workers that share this destination's mail
tls    = "opportunistic"              # none | opportunistic | required | verify

[limits]                              # per source and site
connections                = 5
connection_rate            = "60/min"
messages_per_connection    = 50
rate                       = "20/s"
recipients_per_transaction = 100
recipients_per_connection  = 0        # 0: no limit
mix_domains                = true
quota = { count = 300000, per = "day", zone = "Asia/Tokyo" }

[source_limits]                       # the same keys, per source over all the provider's sites
connections = 20

[provider_limits]                     # all sources together, machine-wide

[sources."new-*"]                     # for some sources only; limits, source_limits, retry
limits = { connections = 2, rate = "2/s" }

[retry]
schedule = ["5m", "15m", "30m", "1h", "2h", "4h"]      # the last one repeats
jitter   = "20%"
avoid    = ["*:58-*:04"]
expire   = "3d"

[[rule]]
name    = "google-unusual-rate"
when    = { code = ["421", "45x"], enhanced = "4.7.*", text = "unusual rate" }
trigger = { count = 2, in = "1h" }
then    = [{ action = "slow", rate = "10/min", for = "30m", scope = "source" }]
"""


def test_every_table_is_read(tmp_path: Path) -> None:
    """Without a word, and each value is where it belongs."""
    (tmp_path / "default.toml").write_text("")
    (tmp_path / "google.toml").write_text(TEXT)

    policies = layers.load(None, shipped=tmp_path)
    google = policies.policies["google"]

    assert policies.warnings == []
    assert policies.by_domain("gmail.com") is policies.by_mx(["alt1.aspmx.l.google.com"]) is google
    assert (google.title, google.owners, google.tls) == ("Google", 1, "opportunistic")
    assert (google.limits.connections, google.limits.connection_rate) == (5, (Rate(60, 60),))
    assert (google.limits.messages_per_connection, google.limits.rate) == (50, (Rate(20, 1),))
    assert (google.limits.recipients_per_transaction, google.limits.recipients_per_connection) == (100, 0)
    assert (google.limits.mix_domains, google.limits.quota) == (True, Quota(300_000, "day", "Asia/Tokyo"))
    assert (google.source_limits.connections, google.provider_limits.connections) == (20, 0)
    assert google.for_source("new-1").limits.rate == (Rate(2, 1),)
    assert google.retry.schedule == (300.0, 900.0, 1800.0, 3600.0, 7200.0, 14400.0)
    assert (google.retry.jitter, google.retry.avoid, google.retry.expire_s) == (0.2, (MinuteWindow(58, 4),), 259_200.0)
    ((rule,), slow) = google.rulebook, google.rulebook[0].then[0]
    assert (rule.when.code, rule.when.enhanced, rule.when.text) == (("421", "45x"), ("4.7.*",), ("unusual rate",))
    assert (rule.trigger.count, rule.trigger.within_s) == (2, 3600.0)
    assert (slow.action, slow.rate, slow.for_s, slow.scope) == ("slow", (Rate(10, 60),), 1800.0, "source")
