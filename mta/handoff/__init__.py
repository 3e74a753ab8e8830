"""Between workers: which worker owns a destination, and how mail gets there."""
