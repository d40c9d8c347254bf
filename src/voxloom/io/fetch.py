"""Downloads public files that an example names, and checks that they are the ones that were meant."""

from __future__ import annotations

import hashlib
import logging
import urllib.error
import urllib.request
from pathlib import Path

from voxloom.errors import FormatError
from voxloom.io.files import atomic_file

LOGGER = logging.getLogger("voxloom")
PIECE = 1 << 20


def fetch(url: str, path: str | Path, *, sha256: str, max_bytes: int = 1 << 40) -> None:
    """Download one file.

    Parameters
    ----------
    url : str
        http:// or https://.
    path : str or Path
        Where it goes; appears only when it is complete and its checksum is right.
    sha256 : str
        Expected checksum of the file's bytes, in hexadecimal.
    max_bytes : int
        Stop when the file turns out to be longer.

    Raises
    ------
    FormatError
        If the address can't be read, or what comes isn't the file that was meant.
    """
    if not url.startswith(("http://", "https://")):
        raise FormatError(f"{url}: expected an address that begins with http:// or https://")
    digest, received = hashlib.sha256(), 0
    with atomic_file(path) as temporary, open(temporary, "wb") as file:
        try:
            with urllib.request.urlopen(url, timeout=60) as answer:
                while piece := answer.read(PIECE):
                    received += len(piece)
                    if received > max_bytes:
                        raise FormatError(f"{url} is longer than {max_bytes} bytes; is it the right address?")
                    digest.update(piece)
                    file.write(piece)
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            raise FormatError(f"{url} can't be downloaded: {error}; check the address and the network") from None
        if digest.hexdigest() != sha256.lower():
            raise FormatError(
                f"{url} has SHA-256 {digest.hexdigest()}, expected {sha256}; the file at that address is another one, "
                "or the download was cut short: try again, then compare with the source"
            )
    LOGGER.info("%s: %d bytes, checksum right", path, received)
