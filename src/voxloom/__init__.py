"""voxloom: from raw 3-D microscopy to segmentations that can be trusted."""

from voxloom.process import keep_to_own_environment

__version__ = "0.1.0"

keep_to_own_environment()  # before anything else is imported
