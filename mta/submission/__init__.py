"""Mail comes in: listeners, sessions, and the acceptance of messages."""
