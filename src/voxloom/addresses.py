"""Paths of the table of volumes that are addresses, which Snakemake's storage plugins fetch.

Imported while the Snakefile is parsed, so it needs nothing but the standard library.
"""

from __future__ import annotations

import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

PLUGINS = {
    "http": "http",
    "https": "http",
    "s3": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "az": "azure",
    "ftp": "ftp",
    "ftps": "ftp",
    "sftp": "sftp",
}
"""How an address begins, and the plugin that reads such."""


def scheme(path: str) -> str | None:
    """How an address begins; None of what is a path on this machine.

    Examples
    --------
    >>> scheme("s3://bucket/brain.zarr::/0"), scheme("raw/brain.nrrd")
    ('s3', None)
    """
    found = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", path)
    return found[1].lower() if found else None


def problem(path: str) -> str | None:
    """Why an address can't be read here, and what to do; None where it can, or is none.

    Parameters
    ----------
    path : str
        As in the table of volumes.

    Returns
    -------
    problem : str or None
    """
    begin = scheme(path)
    if begin is None:
        return None
    if begin not in PLUGINS:
        return f"begins with {begin}://, but expected a path or one of {', '.join(f'{name}://' for name in PLUGINS)}"
    plugin = PLUGINS[begin]
    if importlib.util.find_spec(f"snakemake_storage_plugin_{plugin}") is None:
        return (
            f"needs Snakemake's plugin for {begin}://, which isn't installed; run "
            f"pip install snakemake-storage-plugin-{plugin}, or download the file and write its path"
        )
    if any(sign in path for sign in "*{}"):
        return "has a pattern, but an address names one file or one Zarr store; list each as a volume of its own"
    return None


def local_path(path: str, files: Sequence[str | Path]) -> str:
    """Where a job finds what a path or address of the table of volumes stands for.

    Parameters
    ----------
    path : str
        As in the table of volumes.
    files : sequence of str or Path
        What Snakemake hands to the job for it.

    Returns
    -------
    path : str
        As `voxloom.io.formats.open_source` takes it.

    Examples
    --------
    >>> local_path("https://host/brain.h5::/raw", [".snakemake/storage/http/host/brain.h5"])
    '.snakemake/storage/http/host/brain.h5::/raw'
    >>> local_path("scan/*.tif", ["scan/1.tif", "scan/2.tif"])
    'scan/*.tif'
    """
    base, sign, inside = path.partition("::")
    is_one_file = len(files) == 1 and Path(files[0]).name == base.rstrip("/").rpartition("/")[2]
    return f"{files[0]}{sign}{inside}" if is_one_file else path
