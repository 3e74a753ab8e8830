"""The queue: one log a worker, durable before it is acknowledged. Knows nothing of mail."""
