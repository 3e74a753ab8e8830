"""A lane: a crowd in one row is what its messages one by one would be."""

from hypothesis import given
from hypothesis import strategies as st

from mta_policies.answers import Subject
from mta_policies.rehearsal.lane import Job, Lane
from mta_policies.rehearsal.traffic import Crowd, Mail, Stream

STREAM = Stream(0, "acme.test", "mx.acme.test", "acme", Subject(source="out-1"))

Names = list[tuple[int, int]]
"""Message and recipients of each job."""


def names(jobs: list[Job]) -> Names:
    return [(job.mails[0].message, len(job.mails)) for job in jobs]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("crowd"), st.integers(1, 4)), st.sampled_from([("job", 0), ("take", 0), ("back", 0)])
        )
    ),
    st.integers(1, 5),
    st.integers(1, 5),
)
def test_what_waits_goes_in_the_order_in_which_it_came(steps: list[tuple[str, int]], recipients: int, most: int):
    """Jobs between the rows of a crowd, taken and put back, whatever the recipients of a message and of a job."""
    lane, model = Lane(), Names()
    crowd = Crowd(STREAM, 1_000, 0.0, recipients=recipients)
    come, last = 0, Job([Mail("a@acme.test", 5_000, STREAM, 0.0, 0.0)], 1)
    for step, count in steps:
        if step == "crowd":
            lane.gather(crowd, come, count, most)
            sizes = [min(most, recipients - at) for at in range(0, recipients, most)]
            model += [(number, size) for number in range(come, come + count) for size in sizes]
            come += count
        elif step == "job":
            lane.append(last)
            model += names([last])
        elif model:
            job = lane.popleft()
            assert names([job]) == [model.pop(0)]
            if step == "back":
                lane.put_back(job)
                assert lane.is_first(job)
                model = names([job]) + model
        assert lane.waiting == len(model)

    assert names(list(lane.drained())) == model
