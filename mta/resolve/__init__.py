"""Which hosts take a domain's mail, and at which addresses: DNS behind our own cache."""
