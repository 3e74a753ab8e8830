"""What became of every message: the event log. Knows envelopes and replies, no sockets and no queue."""
