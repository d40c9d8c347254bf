"""A volume predicted by tiles and blocks is the volume predicted at once; what can't be predicted is an error."""

import functools
import logging
import re
import time

import numpy as np
import pytest
import torch

from voxloom import inference, networks, predictor
from voxloom.errors import ModelError, VolumeError
from voxloom.intensity import Normalisation
from voxloom.labelled import read_reflected
from voxloom.slice_scaling import scale_image
from voxloom.symmetries import tile_symmetries
from voxloom.tiles import axis_tiles


def settings(*, size=None, flips=False, rotations=False, normalise="zscore", **network):
    return {
        "network": {
            "name": "unet",
            "dimensions": 2,
            "widths": [3, 4, 5],
            "slices": 1,
            "slice_step": 1,
            "norm": "batch",
            **network,
        },
        "input": {"size": size, "patch_voxels": [1, 16, 16], "normalise": normalise},
        "normalisation": {"name": normalise, "mean": 120.0, "deviation": 40.0, "dtype": "uint8"},
        "precision": "float32",
        "test_time_flips": flips,
        "test_time_rotations": rotations,
        "spacing_um": [1.0, 1.0, 1.0],
    }


def trained_network(model, seed=0):
    """Random weights, and running means and deviations that batch normalisation depends on."""
    network = networks.build(model["network"], seed=seed)
    generator = torch.Generator().manual_seed(seed)
    for name, buffer in network.named_buffers():
        if buffer.dtype == torch.float32:
            noise = torch.rand(buffer.shape, generator=generator)
            buffer.copy_(noise * 0.2 if name.endswith("mean") else 0.5 + noise)
    return network.eval()


def image(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 255, shape).astype(np.uint8)


def at_once(network, model, volume):
    """The definition: slices (in 3-D the volume) mirrored to a size that can be pooled, through the network."""
    is_3d = model["network"]["dimensions"] == 3
    factor = networks.size_factor(model["network"])
    step = model["network"]["slice_step"]
    beside = model["network"]["slices"] // 2 * step
    padded = [-(-n // f) * f for n, f in zip(volume.shape, factor, strict=True)]
    whole = read_reflected(volume, (-beside, 0, 0), (padded[0] + 2 * beside, *padded[1:]))
    x = torch.from_numpy(Normalisation(**model["normalisation"]).apply(whole))
    with torch.no_grad():
        if is_3d:
            p = torch.sigmoid(network(x[None, None]))[0, 0]
        else:
            stacks = torch.stack([x[z : z + 2 * beside + 1 : step] for z in range(volume.shape[0])])
            p = torch.sigmoid(network(stacks))[:, 0]
    return p.numpy()[tuple(slice(0, n) for n in volume.shape)]


def by_region(network, model, volume, start, stop, *, edge, monkeypatch, dtype=np.float32):
    monkeypatch.setitem(predictor.TILE_EDGES, "cpu", (edge, edge))
    result = np.empty(np.subtract(stop, start), dtype=dtype)
    ready = predictor.prepare(network, model, memory_mib=1000, device="cpu", precision=None)
    ready.region(volume, start, stop, result)
    return result


CASES = [
    ({}, (3, 150, 131), 72),
    ({"slices": 5}, (7, 99, 90), 64),
    ({"slices": 3, "slice_step": 2}, (7, 99, 90), 64),
    ({"slices": 3}, (1, 70, 75), 64),
    ({"widths": [2, 3, 3, 4]}, (2, 150, 190), 128),
    ({"dimensions": 3, "widths": [2, 3]}, (37, 30, 41), 32),
    (
        {"dimensions": 3, "widths": [2, 3], "strides": [[1, 2, 3]], "kernels": [[1, 3, 3], [3, 3, 3]]},
        (15, 31, 50),
        32,
    ),
    ({"dimensions": 3, "widths": [2, 3], "kernels": [[1, 3, 3], [3, 3, 5]], "residual": True}, (23, 30, 41), 28),
]


@pytest.mark.parametrize(("network", "shape", "edge"), CASES)
def test_tiles_equal_the_whole(monkeypatch, network, shape, edge):
    model = settings(**network)
    net, volume = trained_network(model), image(shape)
    whole = at_once(net, model, volume)
    assert np.ptp(whole) > 0.05  # the test would pass on a constant
    tiled = by_region(net, model, volume, (0, 0, 0), shape, edge=edge, monkeypatch=monkeypatch)
    np.testing.assert_allclose(tiled, whole, atol=1e-5)


@pytest.mark.parametrize(("network", "shape", "edge"), CASES)
def test_a_box_inside_equals_its_part_of_the_whole(monkeypatch, network, shape, edge):
    model = settings(**network)
    net, volume = trained_network(model), image(shape)
    start, stop = [min(1, n - 1) for n in shape], [max(1, n - 6) for n in shape]
    start[2], stop[2] = shape[2] - 9, shape[2]
    part = by_region(net, model, volume, start, stop, edge=edge, monkeypatch=monkeypatch)
    box = tuple(slice(a, b) for a, b in zip(start, stop, strict=True))
    np.testing.assert_allclose(part, at_once(net, model, volume)[box], atol=1e-5)


def test_a_narrower_halo_would_show_seams(monkeypatch):
    model = settings()
    net, volume = trained_network(model), image((1, 150, 131))
    monkeypatch.setattr(networks, "receptive_field", lambda network: (0, 8, 8))
    tiled = by_region(net, model, volume, (0, 0, 0), volume.shape, edge=72, monkeypatch=monkeypatch)
    assert np.abs(tiled - at_once(net, model, volume)).max() > 1e-4


@pytest.mark.parametrize(
    "arguments",
    [dict(start=0, stop=1000, size=1000), dict(start=13, stop=700, size=1001), dict(start=5, stop=6, size=7)],
)
def test_tiles_cover_the_range_once_and_begin_on_the_pooling_grid(arguments):
    tiles = axis_tiles(**arguments, edge=160, halo=23, factor=4)
    covered = [voxel for tile in tiles for voxel in range(*tile.core)]
    assert covered == list(range(arguments["start"], arguments["stop"]))
    for tile in tiles:
        assert tile.read[0] % 4 == tile.read[1] % 4 == 0
        assert tile.read[0] == 0 or tile.core[0] - tile.read[0] >= 23
        assert tile.read[1] >= arguments["size"] or tile.read[1] - tile.core[1] >= 23


def test_no_tile_is_cut_where_the_volumes_border_leaves_room():
    """Two tiles of 150 fit an edge of 160, though one inside the volume could only keep 116 of them."""
    assert len(axis_tiles(0, 256, 256, edge=160, halo=22, factor=4)) == 2
    assert len(axis_tiles(100, 356, 1000, edge=160, halo=22, factor=4)) == 3


def test_a_slice_that_fits_is_read_once_however_far_the_network_sees():
    tiles = axis_tiles(start=0, stop=500, size=500, edge=640, halo=891, factor=128)
    assert [(tile.core, tile.read) for tile in tiles] == [((0, 500), (0, 512))]


def symmetries(*, flips, rotations):
    """Quarter turns and mirrors of slices as NumPy does them: a function and the one that undoes it."""
    for quarters in range(4) if rotations else (0,):
        for axes in [(), (2,)] if flips and rotations else [(), (1,), (2,), (1, 2)] if flips else [()]:

            def apply(volume, quarters=quarters, axes=axes):
                return np.ascontiguousarray(np.rot90(np.flip(volume, axes), quarters, (1, 2)))

            def undo(volume, quarters=quarters, axes=axes):
                return np.flip(np.rot90(volume, -quarters, (1, 2)), axes)

            yield apply, undo


@pytest.mark.parametrize(("flips", "rotations"), [(True, False), (False, True), (True, True)])
@pytest.mark.parametrize(
    ("network", "shape", "edge"),
    [
        ({}, (2, 48, 52), 640),
        ({"slices": 3}, (2, 88, 100), 72),
        ({"dimensions": 3, "widths": [2, 3]}, (10, 30, 44), 32),
    ],
)
def test_flips_and_rotations_average_the_transformed_predictions(monkeypatch, network, shape, edge, flips, rotations):
    """Of whole volumes, so that a seam of the tiles would show."""
    model = settings(flips=flips, rotations=rotations, **network)
    net, volume = trained_network(model), image(shape)
    chosen = list(symmetries(flips=flips, rotations=rotations))
    mean = np.mean([undo(at_once(net, model, apply(volume))) for apply, undo in chosen], axis=0)
    if flips and model["network"]["dimensions"] == 3:
        upside_down = np.ascontiguousarray(volume[::-1])
        flipped = np.mean([undo(at_once(net, model, apply(upside_down))) for apply, undo in chosen], axis=0)
        mean = (mean + flipped[::-1]) / 2
    assert np.abs(mean - at_once(net, model, volume)).max() > 1e-3  # the test would pass without any transform
    averaged = by_region(net, model, volume, (0, 0, 0), shape, edge=edge, monkeypatch=monkeypatch)
    np.testing.assert_allclose(averaged, mean, atol=1e-5)


@pytest.mark.parametrize(
    ("dimensions", "flips", "rotations", "count"),
    [
        (2, False, False, 1),
        (2, True, False, 4),
        (2, False, True, 4),
        (2, True, True, 8),
        (3, False, False, 1),
        (3, True, False, 8),
        (3, False, True, 4),
        (3, True, True, 16),
    ],
)
def test_every_symmetry_is_taken_once_and_can_be_undone(dimensions, flips, rotations, count):
    tile = torch.arange(24.0).reshape(1, 1, *(2, 3, 4)) if dimensions == 3 else torch.arange(12.0).reshape(1, 1, 3, 4)
    chosen = tile_symmetries(dimensions, has_flips=flips, has_rotations=rotations)
    made = [transform.apply(tile) for transform in chosen]
    assert len(chosen) == len({(each.shape, tuple(each.flatten().tolist())) for each in made}) == count
    assert torch.equal(chosen[0].apply(tile), tile)
    for transform in chosen:
        assert torch.equal(transform.undo(transform.apply(tile)), tile)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"spacing_um": [2.0, 1.0, 1.2]}, "voxels are 1 um along Y and 1.2 um along X; set it to false"),
        ({"input": {"size": [40, 40]}}, "input.size scales slices"),
    ],
)
def test_rotations_of_unlike_axes_are_refused(changes, message):
    model = {**settings(rotations=True), **changes}
    with pytest.raises(ModelError, match=f"test_time_rotations turns slices by 90 degrees, but .*{message}"):
        predictor.prepare(trained_network(model), model, memory_mib=100, device="cpu", precision=None)
    predictor.check_rotations({**model, "test_time_rotations": False})


def test_scaled_slices_are_predicted_at_their_size_and_scaled_back(monkeypatch):
    model = settings(size=[30, 42])
    net, volume = trained_network(model), image((3, 100, 90))
    x = scale_image(torch.from_numpy(Normalisation(**model["normalisation"]).apply(volume))[:, None], (30, 42))
    padded = torch.cat([x, x[..., -3:-1, :].flip(-2)], dim=-2)  # to 32 rows
    padded = torch.cat([padded, padded[..., -3:-1].flip(-1)], dim=-1)  # and 44 columns
    with torch.no_grad():
        small = torch.sigmoid(net(padded))[..., :30, :42]
    expected = scale_image(small, (100, 90))[:, 0].numpy()
    part = by_region(net, model, volume, (0, 10, 0), (3, 90, 90), edge=64, monkeypatch=monkeypatch)
    np.testing.assert_allclose(part, expected[:, 10:90], atol=1e-6)
    stored = inference.predict_slices_at_network_scale([(net, model)], volume, [2, 0], threads=1)
    np.testing.assert_array_equal(stored, np.rint(small[[2, 0], 0].numpy() * 255))


@pytest.mark.parametrize(
    "model", [settings(slices=3), settings(size=[40, 40], slices=3), settings(dimensions=3, widths=[2, 3])]
)
@pytest.mark.parametrize("memory_mib", [5, 400])
def test_a_volume_doesn_t_depend_on_the_memory_budget(monkeypatch, model, memory_mib):
    """5 MiB makes blocks of 16 slices or fewer and small tiles; 400 MiB takes the volume at once."""
    monkeypatch.setattr(inference, "SHARD", (16, 32, 64))
    net, volume = trained_network(model), image((40, 60, 100))
    out = np.zeros(volume.shape, dtype=np.uint8)
    if model["network"]["dimensions"] == 3:
        memory_mib *= 2
    inference.predict_volume(net, model, volume, out, memory_mib=memory_mib, threads=1, description="")
    expected = np.empty(volume.shape, dtype=np.float32)
    if model["input"]["size"]:
        predictor.prepare(net, model, memory_mib=400, device="cpu", precision=None).region(
            volume, (0, 0, 0), volume.shape, expected
        )
    else:
        expected = at_once(net, model, volume)
    assert np.abs(out - expected * 255.0).max() <= 0.51


def test_the_log_says_what_reading_network_and_writing_took(caplog):
    class Slow(np.ndarray):
        def __setitem__(self, index, values):
            time.sleep(0.05)
            super().__setitem__(index, values)

    model = settings()
    volume = image((2, 40, 40))
    with caplog.at_level(logging.INFO, logger="voxloom"):
        inference.predict_volume(
            trained_network(model),
            model,
            volume,
            np.zeros(volume.shape, np.uint8).view(Slow),
            memory_mib=100,
            threads=1,
        )
    [said] = re.findall(r"predict: (.* of [\d.]+ s)", caplog.text)
    shares = {name: int(share) for name, share in re.findall(r"(\w+) (\d+) %", said)}
    assert set(shares) == {"reading", "network", "writing"}
    assert shares["writing"] > 1
    assert sum(shares.values()) <= 102  # of one block: nothing side by side


def test_values_that_are_not_finite_are_an_error(monkeypatch):
    model = settings()
    volume = image((1, 40, 40)).astype(np.float32)
    volume[0, 3, 3] = np.nan
    with pytest.raises(VolumeError, match="not finite") as caught:
        inference.predict_volume(
            trained_network(model), model, volume, np.zeros(volume.shape, np.uint8), memory_mib=100, threads=1
        )
    assert caught.value.__notes__ == ["in voxels [0, 0, 0] to [1, 40, 40] (Z, Y, X) of the image, or near them"]


def test_a_diverged_network_is_an_error():
    model = settings()
    net = trained_network(model)
    with torch.no_grad():
        net.head.bias.fill_(float("nan"))
    volume = image((1, 40, 40))
    with pytest.raises(ModelError, match="output is not finite.*lower learning rate"):
        inference.predict_volume(net, model, volume, volume.copy(), memory_mib=100, threads=1)


@pytest.mark.parametrize("size", [None, [40, 40]])
def test_a_budget_that_is_too_small_says_what_would_do(size):
    model = settings(size=size, widths=[64, 64])
    volume = image((4, 400, 400))
    with pytest.raises(VolumeError, match="raise resources.memory_mib"):
        inference.predict_volume(trained_network(model), model, volume, volume.copy(), memory_mib=0.5, threads=1)


def test_channels_are_refused():
    model = settings()
    with pytest.raises(VolumeError, match="three axes.*take one channel"):
        inference.predict_volume(
            trained_network(model), model, image((2, 4, 8, 8)), np.zeros(1), memory_mib=100, threads=1
        )


def test_another_voxel_size_than_in_training_is_logged(caplog):
    class Stored:
        shape = (1, 40, 40)
        spacing_um = (1.0, 2.0, 2.0)

        def __getitem__(self, index):
            return image(self.shape)[index]

    model = settings()
    inference.predict_volume(
        trained_network(model), model, Stored(), np.zeros(Stored.shape, np.uint8), memory_mib=100, threads=1
    )
    assert "voxels of (1.0, 1.0, 1.0) um (Z, Y, X), this volume has (1.0, 2.0, 2.0) um" in caplog.text


def test_a_native_model_has_no_network_scale():
    model = settings()
    with pytest.raises(ModelError, match="only models of one and the same input.size"):
        inference.predict_slices_at_network_scale([(trained_network(model), model)], image((1, 8, 8)), [0], threads=1)


def ensemble():
    """Models that look at slices, at neighbours, at boxes, and at scaled slices."""
    models = [
        settings(),
        settings(slices=3, rotations=True),
        settings(dimensions=3, widths=[2, 3]),
        settings(size=[40, 48]),
    ]
    return [(trained_network(model, seed), model) for seed, model in enumerate(models)]


@functools.cache
def alone(member):
    """What one of them predicts, in one piece and not rounded."""
    net, model = ensemble()[member]
    volume = image((70, 60, 100))
    single = np.empty(volume.shape, dtype=np.float32)
    ready = predictor.prepare(net, model, memory_mib=400, device="cpu", precision=None)
    ready.region(volume, (0, 0, 0), volume.shape, single)
    return single


@pytest.mark.parametrize("chosen", [[0, 1], [0, 1, 2], [1, 3], [0, 1, 2, 3]])
@pytest.mark.parametrize("memory_mib", [10, 400])
def test_an_ensemble_is_the_mean_of_its_members_rounded_once(monkeypatch, chosen, memory_mib):
    monkeypatch.setattr(inference, "SHARD", (16, 32, 64))
    members = [ensemble()[k] for k in chosen]
    volume, together = image((70, 60, 100)), np.zeros((70, 60, 100), dtype=np.uint8)
    inference.predict_ensemble(members, volume, together, memory_mib=memory_mib, threads=1, description="")
    mean = np.mean([alone(member) for member in chosen], axis=0)
    assert np.abs(mean - alone(chosen[0])).max() > 0.02  # the test would pass on the first member alone
    assert np.abs(together - mean * 255.0).max() <= 0.51


@pytest.mark.parametrize(("flips", "rotations"), [(True, True), (False, None), (None, True)])
def test_an_ensemble_replaces_the_transforms_of_its_members(flips, rotations):
    volume, given = image((4, 40, 48)), {"test_time_flips": flips, "test_time_rotations": rotations}

    def predicted(model, **given):
        out = np.empty(volume.shape, dtype=np.uint8)
        members = [(trained_network(model), model)]
        inference.predict_ensemble(members, volume, out, memory_mib=100, threads=1, **given)
        return out

    trained = settings(flips=True)
    wanted = settings(flips=True if flips is None else flips, rotations=bool(rotations))
    np.testing.assert_array_equal(predicted(trained, **given), predicted(wanted))
    assert np.any(predicted(wanted) != predicted(trained))


def test_scaled_slices_follow_the_ensemble_too():
    volume = image((1, 60, 100))
    plain, flipped = settings(size=[40, 48]), settings(size=[40, 48], flips=True)
    scaled = functools.partial(inference.predict_slices_at_network_scale, image=volume, z_slices=[0], threads=1)
    instead = scaled([(trained_network(plain), plain)], test_time_flips=True)
    np.testing.assert_array_equal(instead, scaled([(trained_network(plain), flipped)]))
    assert np.any(instead != scaled([(trained_network(plain), plain)]))


def test_an_ensemble_of_one_size_is_the_mean_at_that_size():
    model = settings(size=[40, 48])
    members = [(trained_network(model, seed), model) for seed in range(3)]
    volume = image((3, 60, 100))
    together = inference.predict_slices_at_network_scale(members, volume, [0, 2], threads=1)
    singles = [inference.predict_slices_at_network_scale([member], volume, [0, 2], threads=1) for member in members]
    assert np.abs(together - np.mean(singles, axis=0)).max() <= 1.0
    assert np.abs(together - np.mean(singles[:2], axis=0)).max() > 1.0
    other = settings(size=[40, 40])
    with pytest.raises(ModelError, match="one and the same input.size"):
        inference.predict_slices_at_network_scale([*members, (trained_network(other), other)], volume, [0], threads=1)


def test_an_ensemble_of_nothing_is_refused():
    with pytest.raises(ModelError, match="an ensemble of no model"):
        inference.predict_ensemble([], image((1, 8, 8)), np.zeros((1, 8, 8), np.uint8), memory_mib=100, threads=1)
