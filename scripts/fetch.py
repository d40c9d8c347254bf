"""Rule fetch: an address in, the file behind it out."""

from voxloom.io.fetch import fetch
from voxloom.logs import log_to

with log_to(snakemake.log[0]):
    fetch(
        snakemake.params.download["url"],
        snakemake.output.file,
        sha256=snakemake.params.download["sha256"],
    )
