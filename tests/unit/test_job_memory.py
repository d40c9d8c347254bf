"""What a job asks for when it is tried again."""

import pytest

from voxloom import job_memory


@pytest.mark.parametrize(
    ("limit", "asked"),
    [(0, [4000, 8000, 12000]), (10000, [4000, 8000, 10000]), (1000, [4000, 4000, 4000])],
    ids=["no limit", "limit", "limit below the first attempt"],
)
def test_every_attempt_asks_for_more_up_to_the_limit(limit, asked):
    attempts = [job_memory.of_attempt(4000, memory_limit_mib=limit, attempt=attempt) for attempt in (1, 2, 3)]
    assert attempts == asked
