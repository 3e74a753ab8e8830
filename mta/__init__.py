"""mta: a mail transfer agent. Start reading at docs/architecture.md."""

VERSION = "0.5.0"
