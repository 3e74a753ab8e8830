"""The SMTP dialogue, both sides of it: bytes in, replies and events out; no socket, no clock, no chance."""
