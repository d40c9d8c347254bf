"""The embedded demo's specimen: X-ray microtomography of mouse brain, drawn with its truth."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from voxloom import phantom_anatomy as anatomy
from voxloom import phantom_imaging as imaging
from voxloom.errors import VolumeError
from voxloom.phantom_fibres import fibre_frame
from voxloom.volume import Geometry

LABELS = {"axon": 1, "vessel_lumen": 2, "vessel_wall": 3, "cell": 4}
"""Values of `Phantom.labels`; 0 is neuropil. Vessels as they are scored are lumen and wall together."""

LEAST_VOXELS = 16

REGIONS = {
    "CTX": anatomy.Region(
        axon_fraction=0.0,
        lumen_fraction=0.017,
        cell_fraction=0.040,
        bundle_width_um=(0.0, 0.0),
        bundle_elongation=1.0,
        fibre_tilt_degrees=10.0,
        neuropil_grey=115.0,
        axon_grey=139.0,
    ),
    "STR": anatomy.Region(
        axon_fraction=0.17,
        lumen_fraction=0.019,
        cell_fraction=0.045,
        bundle_width_um=(15.0, 65.0),
        bundle_elongation=1.3,
        fibre_tilt_degrees=35.0,
        neuropil_grey=114.0,
        axon_grey=160.0,
    ),
    "TRN": anatomy.Region(
        axon_fraction=0.50,
        lumen_fraction=0.031,
        cell_fraction=0.040,
        bundle_width_um=(37.0, 98.0),
        bundle_elongation=2.0,
        fibre_tilt_degrees=12.0,
        neuropil_grey=117.5,
        axon_grey=142.0,
    ),
    "VP": anatomy.Region(
        axon_fraction=0.57,
        lumen_fraction=0.028,
        cell_fraction=0.030,
        bundle_width_um=(37.0, 98.0),
        bundle_elongation=2.0,
        fibre_tilt_degrees=12.0,
        neuropil_grey=117.5,
        axon_grey=142.0,
    ),
    "ZI": anatomy.Region(
        axon_fraction=0.0,
        lumen_fraction=0.059,
        cell_fraction=0.050,
        bundle_width_um=(0.0, 0.0),
        bundle_elongation=1.0,
        fibre_tilt_degrees=10.0,
        neuropil_grey=128.0,
        axon_grey=150.0,
    ),
}
"""What the brain regions hold: cortex, striatum, reticular and ventral posterior thalamus, zona incerta."""


@dataclass(frozen=True)
class Phantom:
    """A synthetic specimen and what is really in it.

    Parameters
    ----------
    image : ndarray of uint8, shape (Z, Y, X)
        Grey values as the microscope would deliver them.
    labels : ndarray of uint8, shape (Z, Y, X)
        Truth: 0 neuropil, 1 axon, 2 vessel lumen, 3 vessel wall, 4 cell.
    geometry : Geometry
        Voxel size; the first voxel lies at the origin.
    region : str
        Entry of `REGIONS`.
    seed : int
        Seed it was drawn with.
    """

    image: NDArray[np.uint8]
    labels: NDArray[np.uint8]
    geometry: Geometry
    region: str
    seed: int


def make_phantom(
    *, shape: tuple[int, int, int], spacing_um: tuple[float, float, float], seed: int, region: str
) -> Phantom:
    """Draw a piece of mouse brain as propagation-based X-ray microtomography shows it.

    Bright myelinated axons in fascicles, a branching tree of dark vessels with walls, cells, neuropil, phase fringe,
    counting noise and ring artefacts. Greys, sizes and correlations are those measured on the tissue of [1]_, published
    with 1.17 um voxels.

    Parameters
    ----------
    shape : tuple of int
        Voxels along (Z, Y, X), each at least 16.
    spacing_um : tuple of float
        Voxel edge lengths along (Z, Y, X), in micrometres. Anatomy is drawn in micrometres; blur, fringe, noise and
        rings belong to the detector and keep their size in voxels.
    seed : int
        Not negative. The same seed gives the same bytes.
    region : str
        Entry of `REGIONS`, it sets how much of the volume axons, vessels and cells take and how bright they are.

    Returns
    -------
    phantom : Phantom
        The image and its truth.

    Raises
    ------
    VolumeError
        If `shape`, `spacing_um`, `seed` or `region` is not as described.

    Notes
    -----
    Axons, where the region has any, take the region's share of the voxels to within what vessels and cells cover of
    them. Vessels are one tree rooted in a vessel that crosses the volume. Nothing else is shared with a real brain:
    scores on a phantom are synthetic.

    References
    ----------
    .. [1] Prasad et al. (2020). A three-dimensional thalamocortical dataset for characterizing brain heterogeneity.
       Scientific Data 7:358.

    Examples
    --------
    >>> phantom = make_phantom(shape=(32, 64, 64), spacing_um=(1.17, 1.17, 1.17), seed=1, region="VP")
    >>> lumen, axon = phantom.labels == 2, phantom.labels == 1
    >>> bool(phantom.image[lumen].mean() < phantom.image[axon].mean())
    True
    """
    geometry = Geometry(spacing_um=spacing_um)
    if len(shape) != 3 or min(shape) < LEAST_VOXELS:
        raise VolumeError(f"shape must be three numbers of voxels (Z, Y, X), each at least {LEAST_VOXELS}, got {shape}")
    if seed < 0:
        raise VolumeError(f"seed must not be negative, got {seed}")
    if region not in REGIONS:
        raise VolumeError(f"region must be one of {', '.join(REGIONS)}, got {region!r}")
    drawn = REGIONS[region]
    # A stream for each part: a change to one leaves the others as they were.
    streams = [np.random.default_rng(sequence) for sequence in np.random.SeedSequence(seed).spawn(5)]
    fibres = fibre_frame(shape, spacing_um, tilt_degrees=drawn.fibre_tilt_degrees, rng=streams[0])
    bundles = anatomy.draw_bundles(fibres, region=drawn, rng=streams[1])
    vessels = anatomy.draw_vessels(shape, spacing_um, region=drawn, rng=streams[2])
    cells = anatomy.draw_cells(shape, spacing_um, region=drawn, bundles=bundles, vessels=vessels, rng=streams[3])
    labels = np.zeros(shape, dtype=np.uint8)
    labels[bundles < 0] = LABELS["axon"]
    labels[cells.distance_um < 0] = LABELS["cell"]
    labels[vessels.wall_um < 0] = LABELS["vessel_wall"]
    labels[vessels.lumen_um < 0] = LABELS["vessel_lumen"]
    tissue = imaging.tissue_greys(fibres, region=drawn, bundles=bundles, vessels=vessels, cells=cells, rng=streams[4])
    image = imaging.acquire(tissue, rng=streams[4])
    return Phantom(image=image, labels=labels, geometry=geometry, region=region, seed=seed)
