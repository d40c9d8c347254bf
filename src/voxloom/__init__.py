"""voxloom: from raw 3-D microscopy to segmentations that can be trusted."""

__version__ = "0.1.0"
