"""Rule manifest: all results in; their checksums, configuration and provenance out."""

from pathlib import Path

from voxloom import manifest
from voxloom.finished_jobs import finished_jobs
from voxloom.logs import log_to

with log_to(snakemake.log[0]):
    manifest.write_manifest(
        Path(snakemake.output.crate).parent,
        jobs=finished_jobs(),
        configuration=snakemake.params.configuration,
        title=snakemake.params.title,
        licence=snakemake.params.licence,
        seeds=snakemake.params.seeds,
        threads=snakemake.threads,
    )
