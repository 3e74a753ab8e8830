"""The HTTP face of a running server: metrics, health, and what the commands ask for."""
