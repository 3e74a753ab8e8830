"""`mta queue`: what waits, and what an admin may do about it.

`summary`, `list`, `show`, `retry`, `hold`, `release` and `cancel` ask a running server; `verify` and `dump` read the
queue's files with no server.
"""

from typing import cast

from mta.cli import Subparsers, queue_files, queue_live


def add(subparsers: Subparsers) -> None:
    """Describes `mta queue` and its actions to argparse."""
    parser = subparsers.add_parser(
        "queue", help="look into the queue, and change what waits in it", description=(__doc__ or "").split("\n\n")[1]
    )
    actions = parser.add_subparsers(
        title="actions", metavar="ACTION", dest="action", required=True, parser_class=type(parser)
    )
    queue_live.add(cast(Subparsers, actions))
    queue_files.add(cast(Subparsers, actions))
