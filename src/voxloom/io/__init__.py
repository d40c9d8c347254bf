"""Files: the only modules that know formats and axis orders."""

from voxloom.io.files import SafeFile, atomic_directory, atomic_file, save_table, sha256
from voxloom.io.results import fingerprints, is_of, is_synthetic, open_annotations, open_volumes
from voxloom.io.resume import Kept, kept_results, resume_key
from voxloom.io.store import (
    StoredVolume,
    VolumeWriter,
    create_volume,
    keep_results,
    open_volume,
    scratch_volume,
)

__all__ = [
    "Kept",
    "SafeFile",
    "StoredVolume",
    "VolumeWriter",
    "atomic_directory",
    "atomic_file",
    "create_volume",
    "fingerprints",
    "is_of",
    "is_synthetic",
    "keep_results",
    "kept_results",
    "open_annotations",
    "open_volume",
    "open_volumes",
    "resume_key",
    "save_table",
    "scratch_volume",
    "sha256",
]
