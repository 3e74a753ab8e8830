"""The queue: items with parts, durable before they are acknowledged. Knows nothing of mail. See queue/README.md."""
