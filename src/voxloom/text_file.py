"""Text that a user wrote, read whole where it is of a size that a person writes.

Imported while the Snakefile is parsed, so it needs nothing but the standard library.
"""

from __future__ import annotations

import difflib
from pathlib import Path
from typing import Any

from voxloom.errors import ConfigError

MAX_BYTES = 16 << 20


def read_text(path: str | Path, *, encoding: str = "utf-8") -> str:
    """Read a text file.

    Parameters
    ----------
    path : str or Path
    encoding : str
        UTF-8, with or without its mark ("utf-8-sig").

    Returns
    -------
    text : str

    Raises
    ------
    ConfigError
        If there is no such file, it isn't UTF-8, or it has more than `MAX_BYTES`.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            raise ConfigError(f"{path} has more than {MAX_BYTES >> 20} MiB; is it the file that was meant?")
        return data.decode(encoding)
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such file{nearest_file(path)}") from None
    except IsADirectoryError:
        raise ConfigError(f"{path}: is a folder; a file was expected") from None
    except UnicodeDecodeError:
        raise ConfigError(
            f"{path}: is not UTF-8 text; save it as UTF-8 (in a spreadsheet: as text, tab-separated, UTF-8)"
        ) from None


def nearest(word: str, options: Any) -> str:
    """The end of a message about an unknown word: the known one that is meant, or all.

    Parameters
    ----------
    word : str
    options : iterable
        What is known.

    Returns
    -------
    end : str
    """
    options = [str(option) for option in options]
    match = difflib.get_close_matches(str(word), options, 1)
    return f"; did you mean {match[0]!r}?" if match else f"; known: {', '.join(sorted(options))}" if options else ""


def nearest_file(path: Path) -> str:
    """The end of a message about a file that isn't there: the one that is meant, or the folder that is missing.

    Parameters
    ----------
    path : Path

    Returns
    -------
    end : str
    """
    if not path.parent.is_dir():
        return f"; the folder {path.parent} isn't there either (paths are taken from {Path.cwd().name}/)"
    return nearest(path.name, [p.name for p in path.parent.iterdir() if p.suffix == path.suffix])
