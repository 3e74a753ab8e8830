"""The accepted configuration goes from the supervisor to its workers unchanged."""

from pathlib import Path

from mta import accepted
from mta.accepted import AcceptedFile
from mta.config import load


def test_a_worker_reads_what_was_put(tmp_path: Path) -> None:
    """Every put is read back by its place, also when a later one followed, origins and policies included."""
    path = tmp_path / "mta.toml"
    path.write_text('hostname = "one.test"\n')
    first = load(path)
    path.write_text('hostname = "two.test"\n[[tenant]]\nname = "shop"\n')
    second = load(path)
    file = AcceptedFile()

    places = [file.put(first), file.put(second)]
    one, two = (accepted.read(file.descriptor, place) for place in places)
    file.close()

    assert (one.hostname, two.hostname) == ("one.test", "two.test")
    assert two.tenants == second.tenants
    assert one.origin("hostname") == f"{path}:1"
    google = one.policy_set.by_domain("gmail.com")
    assert google is not None
    assert google.limits == first.policy_set.policies["google"].limits


def test_places_survive_their_text() -> None:
    """A place is written into an order and read from it."""
    place = accepted.Place(12, 3456)

    assert accepted.place_of(str(place)) == place
