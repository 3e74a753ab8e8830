"""Provider models by name: what a rehearsal is told to send to."""

import pytest

from mta_policies.answers import Subject
from mta_policies.provider_model import Google, Steady, Throttle, model

WAY = Subject(source="out-1")


def test_models_are_made_by_name() -> None:
    """With what is said of them; each time a new one."""
    google, throttle = model("google:per_minute=1200,penalty=2h")(), model("throttle:per_minute=60")()

    assert isinstance(google, Google)
    assert (google.per_minute, google.penalty_s) == (1200, 7200.0)
    assert isinstance(throttle, Throttle)
    assert throttle.per_minute == 60
    assert isinstance(model("steady")(), Steady)
    make = model("google:per_minute=1")
    assert make() is not make()


def test_google_blocks_for_an_hour_unless_told_otherwise() -> None:
    """The second message of a minute is too much for one that takes one."""
    provider = model("google:per_minute=1")()

    said = [provider.answer(WAY, now_s) for now_s in (0.0, 1.0)]

    assert said[0] is None
    assert said[1] is not None
    assert (said[1].code, said[1].enhanced) == (421, "4.7.28")
    assert isinstance(provider, Google)
    assert provider.is_blocked(WAY, 3600.0)
    assert not provider.is_blocked(WAY, 3602.0)


@pytest.mark.parametrize(
    ("text", "wrong"),
    [
        ("gogle", "there is no provider model gogle; did you mean google?"),
        ("google", "google: how many messages a minute? write google:per_minute=600"),
        ("throttle:per_minute=0", "throttle:per_minute=0: how many messages a minute? write throttle:per_minute=600"),
        (
            "google:per_minute=9,penalty=soon",
            'not a duration: "soon"; write "30s", "5m", "1h" or "3d"',
        ),
        ("throttle:penalty=1h", "throttle:penalty=1h: penalty=1h: throttle takes per_minute=..., each once"),
        ("steady:per_minute=1", "steady:per_minute=1: per_minute=1: steady takes nothing"),
        ("google:per_minute", "google:per_minute: per_minute: google takes per_minute=..., penalty=..., each once"),
    ],
)
def test_what_is_no_model_is_told(text: str, wrong: str) -> None:
    """With what would be right."""
    with pytest.raises(ValueError) as raised:
        model(text)

    assert str(raised.value) == wrong
