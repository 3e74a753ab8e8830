"""Metrics as Prometheus reads them."""

import re
from pathlib import Path
from typing import NamedTuple

import pytest

from mta.reporting import metrics
from mta.reporting.worker_counts import PolicyCounts, WorkerCounts

SAMPLE = re.compile(r'(?P<name>[a-z_]+)\{(?P<labels>(?:[a-z]+="(?:[^"\\\n]|\\["\\n])*",?)*)\} (?P<value>-?[0-9.e+]+)')
LABEL = re.compile(r'([a-z]+)="((?:[^"\\]|\\.)*)"')


class Sample(NamedTuple):
    name: str
    labels: dict[str, str]
    value: float


def read(text: str) -> tuple[list[Sample], dict[str, str]]:
    """Samples, and the type of each name; asserts what the text format 0.0.4 demands."""
    assert text.endswith("\n")
    samples: list[Sample] = []
    kinds: dict[str, str] = {}
    helped: set[str] = set()
    block = ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            _, _, block, _ = line.split(" ", 3)
            assert block not in helped
            helped.add(block)
        elif line.startswith("# TYPE "):
            _, _, name, kinds[block] = line.split(" ")
            assert name == block
        else:
            found = SAMPLE.fullmatch(line)
            assert found, line
            assert found["name"] == block
            labels = dict(LABEL.findall(found["labels"]))
            samples.append(Sample(found["name"], labels, float(found["value"])))
    assert helped == set(kinds)
    return samples, kinds


def value(text: str, name: str, **labels: str) -> float:
    (found,) = (sample.value for sample in read(text)[0] if (sample.name, sample.labels) == (name, labels))
    return found


def test_every_field_has_a_metric() -> None:
    """Nothing that workers count is left out, and nothing is there twice."""
    workers = [metric.field for metric in metrics.WORKER_METRICS]
    policies = [metric.field for metric in metrics.POLICY_METRICS]

    assert sorted(workers) == sorted(metrics.fields_of(WorkerCounts))
    assert sorted(policies) == sorted(metrics.fields_of(PolicyCounts))


def test_names_follow_the_customs() -> None:
    """A counter ends in `_total`, a gauge does not; each has a sentence, and no name is used twice."""
    every = [*metrics.WORKER_METRICS, *metrics.POLICY_METRICS]

    assert [metric.name for metric in every if (metric.kind == "counter") != metric.name.endswith("_total")] == []
    assert [metric.name for metric in every if not metric.help.endswith(".") or "\n" in metric.help] == []
    assert len({metric.name for metric in every}) == len(every)


def test_what_is_rendered_can_be_read() -> None:
    """By the rules of the text format, with the types that the tables say."""
    counts = WorkerCounts(0, 1_750_000_000.25, received=3, policies={"google": PolicyCounts(delivered=2)})

    _, kinds = read(metrics.render([counts], version="1.2.3"))

    assert kinds["mta_received_total"] == "counter"
    assert kinds["mta_queue_recipients"] == "gauge"
    assert len(kinds) == 2 + len(metrics.WORKER_METRICS) + len(metrics.POLICY_METRICS)


def test_values_are_those_that_were_counted() -> None:
    """Of each worker and policy by itself."""
    text = metrics.render(
        [
            WorkerCounts(0, 1_750_000_000.25, received=3, policies={"google": PolicyCounts(delivered=2, ready=1)}),
            WorkerCounts(1, 5.0, received=4, is_taking_mail=False, policies={"google": PolicyCounts(delivered=7)}),
        ],
        version="1.2.3",
    )

    assert value(text, "mta_build_info", version="1.2.3") == 1
    assert value(text, "mta_start_time_seconds", worker="0") == 1_750_000_000.25
    assert [value(text, "mta_received_total", worker=worker) for worker in "01"] == [3, 4]
    assert [value(text, "mta_taking_mail", worker=worker) for worker in "01"] == [1, 0]
    assert [value(text, "mta_policy_delivered_total", worker=worker, policy="google") for worker in "01"] == [2, 7]
    assert value(text, "mta_policy_ready", worker="0", policy="google") == 1


def test_a_worker_that_told_nothing_is_down() -> None:
    """It keeps its number and has no counters."""
    text = metrics.render([None, WorkerCounts(1, 1.0)], version="1")

    samples, _ = read(text)
    assert [value(text, "mta_up", worker=worker) for worker in "01"] == [0, 1]
    assert {sample.name for sample in samples if sample.labels.get("worker") == "0"} == {"mta_up"}


def test_large_numbers_are_whole() -> None:
    """No counter is rounded as it grows."""
    text = metrics.render([WorkerCounts(0, 1.0, delivered=2**53 - 1)], version="1")

    assert f'mta_delivered_total{{worker="0"}} {2**53 - 1}\n' in text


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", 'é"\\\n', ""])
def test_labels_are_escaped(name: str) -> None:
    """Whatever a policy is called."""
    samples, _ = read(metrics.render([WorkerCounts(0, 1.0, policies={name: PolicyCounts(delivered=1)})], version=name))

    (written,) = (sample.labels["policy"] for sample in samples if sample.name == "mta_policy_delivered_total")
    assert re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), written) == name


def test_the_guide_names_every_metric() -> None:
    """And none that is not there."""
    guide = (Path(__file__).resolve().parents[3] / "docs" / "guide" / "metrics.md").read_text("utf-8")
    rendered = {sample.name for sample in read(metrics.render([WorkerCounts(0, 1.0)], version="1"))[0]}
    rendered |= {f"mta_{metric.name}" for metric in metrics.POLICY_METRICS}

    named = set(re.findall(r"\bmta_[a-z_]*[a-z]\b", guide)) - {"mta_policy"}

    assert named == rendered


def test_no_worker_at_all() -> None:
    """Still a whole answer."""
    samples, _ = read(metrics.render([], version="1"))

    assert [sample.name for sample in samples] == ["mta_build_info"]
