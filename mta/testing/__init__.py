"""Fakes that we ship: for tests, the demo and the bench; the server itself never imports them."""
