"""Stores: what goes in comes out, whole or not at all, and other readers open them."""

import json

import numpy as np
import pytest
import zarr

from voxloom import io
from voxloom.errors import FormatError, VolumeError
from voxloom.volume import Geometry, Quantisation

GEOMETRY = Geometry(spacing_um=(4.0, 1.0, 1.5), origin_um=(10.0, 20.0, 30.0))


def write(path, array, *, kind="image", geometry=GEOMETRY, **more):
    with io.create_volume(path, shape=array.shape, dtype=array.dtype, geometry=geometry, kind=kind, **more) as out:
        for z in range(0, array.shape[-3], 64):
            out[..., z : z + 64, :, :] = array[..., z : z + 64, :, :]
    return io.open_volume(path)


def random_image(shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "uint64", "float32", "float64"])
def test_voxels_and_geometry_come_back(tmp_path, dtype):
    image = random_image((70, 90, 110), dtype)
    volume = write(tmp_path / "v.zarr", image, metadata={"header": {"key": "värde"}})
    np.testing.assert_array_equal(volume[:, :, :], image)
    np.testing.assert_array_equal(volume[3:66, -20:, 5], image[3:66, -20:, 5])
    assert volume.geometry == GEOMETRY
    assert volume.metadata == {"header": {"key": "värde"}}
    assert volume.dtype == np.dtype(dtype)


def test_an_uncompressed_volume_holds_the_same_voxels_for_any_reader(tmp_path):
    image = random_image((70, 300, 40), np.uint16)
    volume = write(tmp_path / "v.zarr", image, compression="none")
    np.testing.assert_array_equal(volume[:, :, :], image)
    np.testing.assert_array_equal(zarr.open_array(tmp_path / "v.zarr" / "0", mode="r")[:], image)
    codecs = json.loads((tmp_path / "v.zarr" / "0" / "zarr.json").read_text())["codecs"][0]["configuration"]["codecs"]
    assert [codec["name"] for codec in codecs] == ["bytes"]
    with pytest.raises(VolumeError, match="unknown compression 'gzip'; known: zstd, none"):
        write(tmp_path / "w.zarr", image, compression="gzip")


def test_zarr_python_reads_the_same_voxels_and_the_ome_metadata(tmp_path):
    image = random_image((70, 300, 40), np.uint16)
    write(tmp_path / "v.zarr", image)
    group = zarr.open_group(tmp_path / "v.zarr", mode="r")
    np.testing.assert_array_equal(group["0"][:], image)
    multiscale = group.attrs["ome"]["multiscales"][0]
    assert [a["name"] for a in multiscale["axes"]] == ["z", "y", "x"]
    assert {a["unit"] for a in multiscale["axes"]} == {"micrometer"}
    assert multiscale["datasets"][0]["coordinateTransformations"][0]["scale"] == [4.0, 1.0, 1.5]


def test_coarser_levels_are_means_in_the_right_place(tmp_path):
    image = np.repeat(np.repeat(random_image((20, 150, 150)), 2, axis=1), 2, axis=2)
    geometry = Geometry(spacing_um=(4.0, 1.0, 1.0))
    volume = write(tmp_path / "v.zarr", image, geometry=geometry)
    coarse = volume.level(1)
    assert coarse.shape == (20, 150, 150)  # z is coarse already and stays
    assert coarse.spacing_um == (4.0, 2.0, 2.0)
    assert coarse.geometry.origin_um == (0.0, 0.5, 0.5)
    np.testing.assert_array_equal(coarse[:, :, :], image[:, ::2, ::2])


def test_a_coarse_annotation_keeps_thin_foreground_and_what_nobody_annotated(tmp_path):
    codes = np.full((1, 300, 300), 255, np.uint8)
    codes[0, 100:200, :] = 0
    codes[0, 150, :] = 1
    coarse = write(tmp_path / "v.zarr", codes, kind="annotation").level(1)[0]
    assert set(np.unique(coarse)) == {0, 1, 255}
    assert (coarse[75] == 1).all()
    assert (coarse[:50] == 255).all()


@pytest.mark.parametrize(("kind", "values"), [("annotation", [0, 1, 255]), ("mask", [0, 1])])
def test_a_coarse_voxel_is_decided_by_its_cell_also_at_an_odd_border(tmp_path, kind, values):
    codes = np.random.default_rng(3).choice(values, (5, 7, 301)).astype(np.uint8)
    codes[:, :2, :8] = 255 if kind == "annotation" else 0
    coarse = write(tmp_path / "v.zarr", codes, kind=kind).level(1)[:, :, :]
    step = [-(-n // m) for n, m in zip(codes.shape, coarse.shape, strict=True)]
    for z, y, x in np.ndindex(coarse.shape):
        cell = codes[tuple(slice(i * k, i * k + k) for i, k in zip((z, y, x), step, strict=True))]
        shown = cell[cell != 255]
        assert coarse[z, y, x] == (shown.max() if shown.size else 255)


def test_quantised_values_are_decoded_by_their_scale(tmp_path):
    stored = np.array([[[0, 128, 255]]], np.uint8)
    volume = write(tmp_path / "d.zarr", stored, kind="distance", quantisation=Quantisation(10 / 255, unit="micrometer"))
    np.testing.assert_allclose(volume.quantisation.decode(volume[:, :, :]), [[[0, 128 * 10 / 255, 10]]], rtol=1e-6)


def test_an_interrupted_store_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError, match="power cut"):
        with io.create_volume(tmp_path / "v.zarr", shape=(4, 4, 4), dtype="uint8", geometry=GEOMETRY, kind="image"):
            raise RuntimeError("power cut")
    assert list(tmp_path.iterdir()) == []


def test_channels_come_first(tmp_path):
    image = random_image((3, 5, 6, 7))
    volume = write(tmp_path / "v.zarr", image)
    np.testing.assert_array_equal(volume[1], image[1])
    axes = json.loads((tmp_path / "v.zarr" / "zarr.json").read_text())["attributes"]["ome"]["multiscales"][0]["axes"]
    assert [a["name"] for a in axes] == ["c", "z", "y", "x"]


def test_the_same_voxels_make_the_same_bytes(tmp_path):
    image = random_image((70, 520, 30))
    for name in "ab":
        write(tmp_path / name / "v.zarr", image)
    files = sorted(p.relative_to(tmp_path / "a") for p in (tmp_path / "a").rglob("*") if p.is_file())
    assert len(files) > 3
    assert all((tmp_path / "a" / f).read_bytes() == (tmp_path / "b" / f).read_bytes() for f in files)


def test_errors_say_what_was_expected(tmp_path):
    with pytest.raises(FormatError, match="not a volume: expected a folder with a zarr.json"):
        io.open_volume(tmp_path / "none.zarr")
    with pytest.raises(VolumeError, match="unknown kind of volume 'picture'; known: image"):
        with io.create_volume(tmp_path / "x", shape=(1, 1, 1), dtype="uint8", geometry=GEOMETRY, kind="picture"):
            pass
    volume = write(tmp_path / "v.zarr", random_image((2, 2, 2)))
    with pytest.raises(IndexError, match="outside an axis of 2 voxels"):
        volume[5]
    with pytest.raises(VolumeError, match="three positive numbers"):
        Geometry(spacing_um=(1.0, 0.0, 1.0))


@pytest.mark.parametrize(
    ("kind", "dtype", "order"),
    [
        ("image", "uint16", "bitshuffle"),
        ("probability", "uint16", "bitshuffle"),
        ("distance", "uint16", "shuffle"),
        ("labels", "uint32", "shuffle"),
        ("annotation", "uint8", "noshuffle"),
        ("image", "uint8", "noshuffle"),
    ],
)
def test_bits_are_shuffled_where_they_are_noise_and_bytes_where_they_repeat(tmp_path, kind, dtype, order):
    values = np.arange(300, dtype=np.int64).reshape(1, 1, 300).astype(dtype)
    with io.create_volume(tmp_path / "v.zarr", shape=values.shape, dtype=dtype, geometry=GEOMETRY, kind=kind) as out:
        out[:, :, :] = values
    for level in ("0", "1"):
        (sharding,) = json.loads((tmp_path / "v.zarr" / level / "zarr.json").read_text())["codecs"]
        how = sharding["configuration"]["codecs"][-1]["configuration"]
        assert (how["cname"], how["clevel"], how["shuffle"]) == ("zstd", 2, order)
    np.testing.assert_array_equal(io.open_volume(tmp_path / "v.zarr")[:, :, :], values)
