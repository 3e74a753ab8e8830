"""`mta policy test`: do the rules of policy files do what their own `[[test]]`s say?

With FILE the tests of that file, with --all those of every file. Shipped tests run against the shipped policies, an
admin's against his own laid over them, a tenant's against what holds for the tenant. A file that is in no policies
folder is tried as one of the admin's: so a change is tested before it is put there.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mta import config
from mta.cli import EXIT_DONE, EXIT_USAGE, EXIT_WRONG, Subparsers, words
from mta.cli.policy_values import print_json
from mta.cli.words import Column
from mta_policies import cases, layers
from mta_policies.cases import Result
from mta_policies.layers import PolicySet

COLUMNS = (
    Column("test"),
    Column("reply", cut=True),
    Column("what"),
    Column("expected", cut=True),
    Column("came", cut=True),
)


def add(actions: Subparsers, common: argparse.ArgumentParser) -> None:
    """Describes the action."""
    parser = actions.add_parser(
        "test",
        parents=[common],
        help="run the [[test]]s of policy files",
        description="Runs the [[test]]s of a policy file, or of all: does each reply find its rule, and is done what"
        " the test says? Exit status 1: some do not.",
    )
    parser.add_argument("file", metavar="FILE", nargs="?", help="a policy file, in a policies folder or not yet")
    parser.add_argument("--all", action="store_true", help="the tests of all policy files")
    parser.set_defaults(run=run)


def run(args: argparse.Namespace) -> int:
    """Prints every test that came out otherwise, and how many there were."""
    if bool(args.file) == args.all:
        print("which tests? name a policy file, or all of them with --all", file=sys.stderr)
        return EXIT_USAGE
    directory, disabled = _folders(args.config)
    if args.file and not Path(args.file).is_file():
        print(f"there is no file {args.file}", file=sys.stderr)
        return EXIT_WRONG
    draft = Path(args.file) if args.file and not _is_in_use(Path(args.file), directory) else None
    ours = layers.load(directory, disabled, draft=draft)
    shipped = layers.load(None, disabled)
    results = _run(shipped, ours, Path(args.file) if args.file else None)
    if args.json:
        print_json(_object(results))
    else:
        _print(results)
    return EXIT_DONE if all(result.is_good for result in results) else EXIT_WRONG


def _folders(file: str | None) -> tuple[Path | None, Sequence[str]]:
    """The admin's folder and the shipped policies that he does not want, by the configuration if there is one."""
    if file is None and not Path(config.DEFAULT_FILE).exists():
        return None, ()
    policies = config.load(file or config.DEFAULT_FILE).policies
    return (policies.directory if policies.directory.is_dir() else None), policies.disabled


def _is_in_use(file: Path, directory: Path | None) -> bool:
    """Whether it is read anyway, because it lies in one of the folders."""
    here = file.resolve().parent
    if here == layers.shipped_directory().resolve():
        return True
    return directory is not None and (
        here == directory.resolve() or here.parent == (directory / layers.TENANTS).resolve()
    )


def _run(shipped: PolicySet, ours: PolicySet, file: Path | None) -> list[Result]:
    """Each test in the layers that it is about."""
    results: list[Result] = []
    for policies, is_shipped in ((shipped, True), (ours, False)):
        wanted = [
            test
            for test in policies.tests
            if test.is_shipped == is_shipped and (file is None or Path(test.place.file).resolve() == file.resolve())
        ]
        results += cases.run(policies, wanted)
    return results


def _print(results: Sequence[Result]) -> None:
    rows = []
    for result in results:
        for i, wrong in enumerate(result.mismatches):
            head = ["", ""] if i else [str(result.case.place), result.case.test.reply]
            rows.append([*map(words.printable, (*head, *wrong))])
    failed = sum(not result.is_good for result in results)
    if rows:
        print(*words.table(COLUMNS, rows), "", sep="\n")
    told = words.several(len(results), "test")
    print(f"{told}, {failed} failed" if failed else f"{told}, all as expected" if results else "no tests")


def _object(results: Sequence[Result]) -> dict[str, object]:
    return {
        "tests": len(results),
        "failed": [
            {
                **result.case.place._asdict(),
                "policy": result.case.policy,
                "tenant": result.case.tenant,
                "reply": result.case.test.reply,
                "mismatches": [wrong._asdict() for wrong in result.mismatches],
            }
            for result in results
            if not result.is_good
        ],
    }
