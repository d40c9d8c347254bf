"""Rule phantom: nothing in, a synthetic raw volume and its true labels out."""

from voxloom import phantom
from voxloom.io.nrrd import write_nrrd
from voxloom.io.source import Segment
from voxloom.logs import log_to

with log_to(snakemake.log[0]):
    settings = snakemake.params.phantom
    specimen = phantom.make_phantom(
        shape=tuple(settings["shape"]),
        spacing_um=tuple(settings["spacing_um"]),
        seed=settings["seed"],
        region=settings["region"],
    )
    whole = {"shape": specimen.image.shape, "dtype": "uint8", "geometry": specimen.geometry}
    header = {"key_values": {"synthetic": f"voxloom phantom, region {specimen.region}, seed {specimen.seed}"}}
    everywhere = tuple(slice(0, size) for size in specimen.image.shape)
    write_nrrd(snakemake.output.volume, [(everywhere, specimen.image)], header=header, **whole)
    write_nrrd(
        snakemake.output.truth,
        [(everywhere, specimen.labels)],
        header=header,
        segments=[Segment(id=name, name=name, label_value=value) for name, value in phantom.LABELS.items()],
        **whole,
    )
