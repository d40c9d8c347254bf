"""Batches come in their order whoever makes them, and a loader's error is the loader's own."""

import time
import traceback

import pytest
import torch
from unit.test_sampling import sampler

from voxloom.loading import Prefetched


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_any_number_of_workers_makes_the_same_patches(workers):
    chosen = sampler()
    made = list(Prefetched(lambda number: chosen.batch(1, number), range(chosen.steps_per_epoch), workers=workers))
    assert [number for number, _ in made] == list(range(chosen.steps_per_epoch))
    for number, batch in made:
        assert torch.equal(batch.image, chosen.batch(1, number).image)
        assert batch.places == chosen.batch(1, number).places


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_an_error_is_the_worker_s_own(workers):
    chosen = sampler()
    read, count = chosen.parts[0].image, iter(range(100))

    def image(start, shape):
        if next(count) > 4:
            raise OSError("chunk 7 can't be read")
        return read(start, shape)

    chosen.parts[0].image = image
    with pytest.raises(OSError, match="chunk 7 can't be read") as caught:
        list(Prefetched(lambda number: chosen.batch(0, number), range(chosen.steps_per_epoch), workers=workers))
    assert "while reading a training sample of volume a at voxel" in caught.value.__notes__[0]
    assert "sampling.py" in "".join(traceback.format_tb(caught.value.__traceback__))


def test_working_ahead_hides_the_time_that_loading_takes():
    loader = Prefetched(lambda number: time.sleep(0.02), range(10), workers=1)
    for _ in loader:
        time.sleep(0.04)
    inline = Prefetched(lambda number: time.sleep(0.02), range(10), workers=0)
    assert len(list(inline)) == 10
    assert inline.waited_s > 0.19
    assert loader.waited_s < 0.5 * inline.waited_s


def test_a_loader_that_is_left_stops_making():
    made = []
    for number, _ in Prefetched(made.append, range(1000), workers=2):
        if number == 3:
            break
    assert len(made) < 10
