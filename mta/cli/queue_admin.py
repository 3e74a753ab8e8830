"""`mta queue`: what waits, and what an admin may do about it.

`summary`, `list`, `show`, `why`, `retry`, `hold`, `release` and `cancel` ask a running server; `export` and `import`
move mail to another one; `verify` and `dump` read the queue's files with no server.
"""

from typing import cast

from mta.cli import Subparsers, queue_acts, queue_files, queue_live, queue_move, queue_why


def add(subparsers: Subparsers) -> None:
    """Describes `mta queue` and its actions to argparse."""
    parser = subparsers.add_parser(
        "queue", help="look into the queue, and change what waits in it", description=(__doc__ or "").split("\n\n")[1]
    )
    actions = parser.add_subparsers(
        title="actions", metavar="ACTION", dest="action", required=True, parser_class=type(parser)
    )
    for module in (queue_live, queue_why, queue_acts, queue_move, queue_files):
        module.add(cast(Subparsers, actions))
