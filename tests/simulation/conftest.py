"""Simulations are played by seed: a test that takes `seed` runs once for each that was chosen."""

from collections.abc import Generator

import pytest

SEEDS = 200  # what `make test` plays


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("simulation")
    group.addoption("--seeds", type=int, default=SEEDS, help="simulations play seeds 0 to this one, itself left out")
    group.addoption("--seed", type=int, default=None, help="simulations play this seed alone")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "seed" in metafunc.fixturenames:
        # Started from another folder pytest comes here too late to have asked for the options.
        seed = metafunc.config.getoption("--seed", None)
        count = metafunc.config.getoption("--seeds", None) or SEEDS
        metafunc.parametrize("seed", range(count) if seed is None else [seed])


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    callspec = getattr(item, "callspec", None)
    if report.failed and callspec is not None and "seed" in callspec.params:
        report.sections.append(("play it again", f"make simulate SEED={callspec.params['seed']}"))
    return report
