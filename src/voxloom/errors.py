"""The errors that a user can cause. Each message says what was expected, what came, where, and what to do next."""


class VoxloomError(Exception):
    """Base of all errors that a user can cause; anything else that is raised is our own mistake."""


class VolumeError(VoxloomError, ValueError):
    """An array or its geometry is not what an algorithm takes."""


class FormatError(VoxloomError, ValueError):
    """A file is not what its name or header says, or holds what voxloom doesn't read."""


class ConfigError(VoxloomError, ValueError):
    """A configuration file or table has a wrong key or value."""


class SplitError(VoxloomError, ValueError):
    """Training, validation and test sets can't be made, or are too close to each other."""


class ModelError(VoxloomError, ValueError):
    """A network, its weights or its training settings don't fit together."""


class DiskError(VoxloomError, OSError):
    """A disk doesn't take or give what is asked of it: it is full, read-only, closed to the user, or lost a file."""
