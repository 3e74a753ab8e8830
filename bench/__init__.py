"""Load tests: a sink that acts like mailbox providers, a load generator, the demo, and the figures they give."""
