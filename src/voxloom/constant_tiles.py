"""Tiles that hold one value throughout, as empty margins do, are predicted once a value and shape."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

Key = tuple[float, tuple[int, ...]]


@dataclass
class ConstantTiles:
    """Remembers what a network made of tiles of one value; equal tiles get equal bytes, so nothing is approximated.

    Parameters
    ----------
    memory_mib : float
        Of what is remembered at most; what was longest not needed is forgotten.

    Attributes
    ----------
    hits : int
        Tiles that the network didn't have to look at.
    """

    memory_mib: float
    hits: int = 0
    _known: OrderedDict[Key, Tensor] = field(default_factory=OrderedDict)

    def predict(self, batch: Tensor, forward: Callable[[Tensor], Tensor]) -> Tensor:
        """What the network makes of a batch.

        Parameters
        ----------
        batch : Tensor
            As `forward` takes it.
        forward : callable
            The network, always the same.

        Returns
        -------
        probability : Tensor
            Not to be modified.
        """
        first = batch.flatten()[0]
        # most tiles are told apart by two voxels
        if batch[(-1,) * batch.ndim] != first or not bool((batch == first).all()):
            return forward(batch)
        key = (float(first), tuple(batch.shape))
        if key in self._known:
            self.hits += 1
            self._known.move_to_end(key)
            return self._known[key]
        return self._remember(key, forward(batch))

    def _remember(self, key: Key, probability: Tensor) -> Tensor:
        self._known[key] = probability
        while sum(kept.nbytes for kept in self._known.values()) > self.memory_mib * 2**20:
            self._known.popitem(last=False)
        return probability
