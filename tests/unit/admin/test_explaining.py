"""The page that says what the next message to an address would wait for: what it asks workers, and what it makes of
their answers."""

import pytest

from mta.admin.face import AdminFace
from mta.reporting.waiting import Explain, Explained, Outlook, Reason, Wait
from mta.testing.admin_rig import Client, FakeAsker
from mta.testing.fake_clock import FakeClock
from mta_policies.answers import Answer
from mta_policies.firings import Firings
from mta_policies.rulebook import Action


async def test_what_the_owner_says_with_what_is_in_force(client: Client, asker: FakeAsker, clock: FakeClock) -> None:
    """Outlooks of all owners by source, each firing once and in full; who does not answer is told."""
    fired = Firings()
    answer = Answer(421, "4.7.28", "too fast", "content")
    change = fired.fire("google", "fast", Action("suspend"), "site x > google", answer, clock.wall_s(), "f1")
    client.face.rules_changed(0, [change])
    wait = Wait("the rate of 6/min", Reason("rate", "limits.rate", "6/min", "policies/google.toml:3"))
    one = Outlook("out-2", 0, "google", "x", [wait], firings=["f1", "gone"])
    other = Outlook("out-1", 0, "google", "x", firings=["f1"])
    asker.answers[Explain] = [Explained([one, other]), None]
    asker.down = {1}

    answered = await client.get(
        "/explain?address=a@b.%C3%A9xample&source=out-2&source=out-1&tenant=shop&campaign=spring"
    )

    assert answered.status == 200
    page = answered.json
    assert [outlook["source"] for outlook in page["outlooks"]] == ["out-1", "out-2"]
    assert page["outlooks"][1]["waits"][0]["reason"]["limit"] == "limits.rate"
    assert [(row["id"], row["rule"]) for row in page["firings"]] == [("f1", "fast")]
    assert page["problems"] == ["worker 1 does not answer"]
    [asked] = asker.of(Explain)
    assert asked == Explain("a@b.éxample", "b.xn--xample-9ua", ["out-2", "out-1"], "shop", "spring")


@pytest.mark.parametrize(
    ("query", "wrong"),
    [
        ("address=a@-", "a@- has no domain that mail could go to"),
        ("", "an empty address has no domain that mail could go to"),
        ("adress=a@b.test", "there is no adress to ask for; did you mean address?"),
        ("address=a@b.test&tenant=" + "x" * 2000, "tenant is longer than 1000 characters"),
        ("address=a@b.test" + "".join(f"&source={n}" for n in range(101)), "more than 100 sources at once"),
    ],
)
async def test_a_question_that_cannot_be_meant(client: Client, query: str, wrong: str) -> None:
    """400, with a sentence."""
    answered = await client.get(f"/explain?{query}")

    assert (answered.status, answered.json["error"]) == (400, wrong)


async def test_nobody_answers(client: Client, asker: FakeAsker) -> None:
    """503, as everywhere."""
    asker.down = {0, 1}

    assert (await client.get("/explain?address=a@b.test")).status == 503


async def test_it_wants_the_token(make_face, asker: FakeAsker) -> None:  # type: ignore[no-untyped-def]
    """Whom mail waits for is nobody's business."""
    face: AdminFace = make_face(token="secret")
    await face.start()

    assert (await Client(face).get("/explain?address=a@b.test")).status == 401
