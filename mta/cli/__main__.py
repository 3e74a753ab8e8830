"""`python -m mta.cli`: the same as the `mta` command."""

import sys

from mta.cli import main

if __name__ == "__main__":
    sys.exit(main())
