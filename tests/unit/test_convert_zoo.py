"""Files of many NRRD writers: converted to the voxels and voxel size that SimpleITK finds, or refused."""

import csv
from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from voxloom import io
from voxloom.convert import convert
from voxloom.errors import VoxloomError
from voxloom.io.formats import open_source
from voxloom.io.nrrd_geometry import micrometres_per

ANY_SIZE = (1e-9, 1e9)


def catalog(folder: Path) -> list[dict[str, str]]:
    with open(folder / "CATALOG.tsv", newline="") as file:
        return [row for row in csv.DictReader(file, delimiter="\t") if not row["expect"].startswith("header only")]


def itk_array(image):
    """As we store it: (Z, Y, X), channels first."""
    array = SimpleITK.GetArrayFromImage(image)
    if image.GetNumberOfComponentsPerPixel() > 1:
        array = np.moveaxis(array, -1, 0)
    if image.GetDimension() == 2:
        array = np.expand_dims(array, -3)
    return array


def itk_spacing_um(image, header):
    """SimpleITK hands out a header's numbers without their unit."""
    units = header.get("space units", header.get("units", "")).replace('"', " ").split()
    factor = next((micrometres_per(unit) for unit in units if micrometres_per(unit)), 1000.0)
    return [size * factor for size in reversed(image.GetSpacing())]


def test_every_readable_file_converts_to_what_simpleitk_finds(shared_data, tmp_path):
    zoo = shared_data / "nrrd-zoo"
    compared = 0
    for number, row in enumerate(catalog(zoo)):
        if not row["expect"].startswith("ok") or row["itk_5.x"] != "ok":
            continue
        source = open_source(zoo / row["path"])
        if source.shape is None:
            continue
        size = None if source.geometry else (1.0, 1.0, 1.0)
        out = tmp_path / f"{number}.zarr"
        convert(source, out, memory_mib=512, voxel_size_um=size, voxel_um_range=ANY_SIZE)
        volume = io.open_volume(out)
        image = SimpleITK.ReadImage(str(zoo / row["path"]))
        np.testing.assert_array_equal(volume[...], itk_array(image), err_msg=row["path"])
        if source.geometry is not None and image.GetDimension() == 3:
            expected = itk_spacing_um(image, source.header)
            np.testing.assert_allclose(volume.spacing_um, expected, rtol=1e-5, err_msg=row["path"])
        compared += 1
    assert compared > 80


def test_every_malformed_file_is_refused(shared_data, tmp_path):
    zoo = shared_data / "nrrd-zoo"
    for row in catalog(zoo):
        if row["expect"] != "error":
            continue
        with pytest.raises(VoxloomError, match=rf"nrrd-zoo.{Path(row['path']).parent}"):
            convert(open_source(zoo / row["path"]), tmp_path / "a.zarr", memory_mib=512, voxel_size_um=(1.0, 1.0, 1.0))
        assert not (tmp_path / "a.zarr").exists(), row["path"]
