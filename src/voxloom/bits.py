"""Masks as bits: 64 voxels of a row are one word."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from voxloom.kernels import compiled

WORD = 64
"""Voxels of a word."""

_DE_BRUIJN = np.uint64(0x03F79D71B4CB0A89)
_PLACES = np.zeros(WORD, np.uint8)
_PLACES[[((int(_DE_BRUIJN) << k) & (2**64 - 1)) >> 58 for k in range(WORD)]] = range(WORD)
"""A single bit times this number has in its upper six bits what no other bit has."""


def packed(mask: NDArray[Any], width: int) -> NDArray[np.uint64]:
    """A mask's rows as words, the lowest bit first.

    Parameters
    ----------
    mask : ndarray of bool or uint8, shape (Z, Y, X)
        Non-zero is foreground.
    width : int
        For how many voxels a row of words has room, at least X; those beyond X are 0.

    Returns
    -------
    bits : ndarray of uint64, shape (Z * Y, words)

    Examples
    --------
    >>> packed(np.array([[[True, False, True]]]), 3)
    array([[5]], dtype=uint64)
    """
    rows, words = mask.shape[0] * mask.shape[1], -(-width // WORD)
    found = np.packbits(mask.reshape(rows, mask.shape[2]), axis=-1, bitorder="little")
    if found.shape[1] < words * WORD // 8:
        found = np.pad(found, ((0, 0), (0, words * WORD // 8 - found.shape[1])))
    return found.view(np.uint64)


@compiled
def ones(word):  # type: ignore[no-untyped-def]
    """How many bits of a word are set."""
    word = word - ((word >> np.uint64(1)) & np.uint64(0x5555555555555555))
    word = (word & np.uint64(0x3333333333333333)) + ((word >> np.uint64(2)) & np.uint64(0x3333333333333333))
    word = (word + (word >> np.uint64(4))) & np.uint64(0x0F0F0F0F0F0F0F0F)
    return np.int64((word * np.uint64(0x0101010101010101)) >> np.uint64(56))


@compiled
def lowest(word):  # type: ignore[no-untyped-def]
    """The place of the lowest bit that is set; the word is not 0."""
    return np.int64(_PLACES[((word & (~word + np.uint64(1))) * _DE_BRUIJN) >> np.uint64(58)])
