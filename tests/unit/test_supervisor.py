"""What the supervisor decides before and while its workers run."""

from pathlib import Path

import pytest

from mta import premises, supervisor
from mta.config import Config, load
from mta.premises import LogError


def _config(path: Path, text: str) -> Config:
    path.write_text(text)
    return load(path)


def test_a_reload_keeps_what_only_a_restart_changes(tmp_path: Path) -> None:
    """Listeners, workers, queue, DNS, log, hostname and prohibited networks stay, and are named; the rest changes."""
    path = tmp_path / "mta.toml"
    running = _config(path, 'hostname = "a.test"\nworkers = 2\n')
    written = _config(
        path,
        'hostname = "b.test"\nworkers = 1\n[queue]\ndirectory = "elsewhere"\n'
        '[delivery]\nidle_timeout = "5s"\nprohibited_networks = []\n',
    )

    config, names = supervisor._reloaded(running, written)

    assert names == ["hostname", "workers", "queue", "delivery.prohibited_networks"]
    assert (config.hostname, config.workers, config.queue) == ("a.test", 2, running.queue)
    assert config.delivery.prohibited_networks == running.delivery.prohibited_networks
    assert config.delivery.idle_timeout_s == 5.0


def test_an_unchanged_file_needs_no_restart(tmp_path: Path) -> None:
    """A reload that changes policies alone names nothing."""
    running = _config(tmp_path / "mta.toml", 'hostname = "a.test"\n')

    config, names = supervisor._reloaded(running, load(tmp_path / "mta.toml"))

    assert names == []
    assert config.hostname == "a.test"


def test_an_event_log_that_cannot_be_written_is_told_at_the_start(tmp_path: Path) -> None:
    """The line of mta.toml, the file and the reason are named."""
    (tmp_path / "taken").write_text("a file where a folder should be")
    config = _config(tmp_path / "mta.toml", '[log]\nevents = "taken/events.jsonl"\n')

    with pytest.raises(LogError) as refused:
        premises.try_log(config)

    assert str(refused.value).startswith(f"{tmp_path / 'mta.toml'}:2: cannot write the event log")
