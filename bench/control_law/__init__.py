"""The control law beside others: how much is delivered, and how often the provider refuses, on a virtual clock."""
