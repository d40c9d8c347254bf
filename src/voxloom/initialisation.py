"""Weights that a training begins with: those of another network where names and shapes agree, random ones elsewhere."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from voxloom import vgg
from voxloom.boxes import Box
from voxloom.errors import ModelError

LOGGER = logging.getLogger("voxloom")
LOADED, OTHER_SHAPE, MISSING, UNUSED = "loaded", "other shape", "not in the source", "not in the network"
MOST_NAMED = 6


@dataclass(frozen=True)
class SeenBox:
    """A box of a volume whose labels a model learnt or was chosen by.

    Parameters
    ----------
    sha256 : str
        Of the volume's file.
    part : {"train", "validation"}
    box : Box
    """

    sha256: str
    part: str
    box: Box

    def row(self) -> dict[str, str | int]:
        """As a row of a table: sha256, part, z_from, z_to, ..."""
        edges = zip("zyx", self.box, strict=True)
        ends = {f"{axis}_{end}": edge for axis, both in edges for end, edge in zip(("from", "to"), both, strict=True)}
        return {"sha256": self.sha256, "part": self.part, **ends}


@dataclass(frozen=True)
class Initial:
    """What a training begins with.

    Parameters
    ----------
    source : str
        What the weights are called in logs and reports.
    sha256 : str
        Of the weights' file.
    tensors : mapping of str to Tensor
        Weights and running statistics, on the CPU.
    freeze : tuple of str
        Names of modules whose weights don't learn, with everything below them: "down" or "down.0".
    seen : tuple of SeenBox, or None
        Labels that went into the weights, those of their own beginnings included; None where nobody knows.
    """

    source: str
    sha256: str
    tensors: Mapping[str, Tensor]
    freeze: tuple[str, ...]
    seen: tuple[SeenBox, ...] | None


@dataclass(frozen=True)
class TensorReport:
    """What became of one tensor.

    Parameters
    ----------
    tensor : str
        Its name in the network; in the source, where the network has none.
    source_tensor : str
        Its name in the source, empty where there is none.
    status : {"loaded", "other shape", "not in the source", "not in the network"}
        Only the first took anything over.
    shape, source_shape : str
        Edge lengths joined by x, "scalar" for a single number, or empty where there is no such tensor.
    is_frozen : bool
    """

    tensor: str
    source_tensor: str
    status: str
    shape: str
    source_shape: str
    is_frozen: bool


def begin(network: nn.Module, initial: Initial | None) -> list[nn.Module]:
    """Put another model's weights into a network, and freeze what shall not learn.

    Parameters
    ----------
    network : torch.nn.Module
        Modified: a tensor whose name and shape agree is taken over, running statistics as well; any other, such as a
        head for other classes or a first convolution for other channels, stays as it is. VGG-16's convolutions have
        other names and colours, see `voxloom.vgg`.
    initial : Initial or None
        None leaves the network as it is.

    Returns
    -------
    frozen : list of torch.nn.Module
        Modules to keep in evaluation mode while the others learn, so that their batch statistics stay, too.

    Raises
    ------
    ModelError
        If no weight at all fits, a value is not finite, a name of `freeze` is unknown, nothing is left to learn, or a
        frozen weight would stay random.
    """
    if initial is None:
        return []
    rows = compare(network, initial)
    parameters = {name for name, _ in network.named_parameters()}
    loaded = [row.tensor for row in rows if row.status == LOADED]
    if not parameters.intersection(loaded):
        raise ModelError(
            f"init_from: of the {len(parameters)} weights of this network none has the name and shape of one in "
            f"{initial.source} ({_examples(parameters)} here, {_examples(initial.tensors)} there); name a model of the "
            "same network, or remove init_from"
        )
    _refuse_values(initial, [row.source_tensor for row in rows if row.status == LOADED])
    random = {row.tensor for row in rows if row.is_frozen and row.status in (OTHER_SHAPE, MISSING)}
    if random:
        raise ModelError(
            f"freeze holds {_examples(random)}, which {initial.source} doesn't have in this shape: the weights would "
            "stay random; freeze less, or begin with another model"
        )
    state = network.state_dict()
    given = _given(network, initial)
    network.load_state_dict({name: given[name][1] if name in loaded else state[name] for name in state})
    frozen = _freeze(network, initial.freeze)
    _say(rows, network, initial)
    return frozen


def learning(network: nn.Module) -> list[nn.Parameter]:
    """The parameters that are not frozen; what an optimiser should see."""
    return [parameter for parameter in network.parameters() if parameter.requires_grad]


def compare(network: nn.Module, initial: Initial) -> list[TensorReport]:
    """Which tensors of a network another model's weights fit.

    Parameters
    ----------
    network : torch.nn.Module
    initial : Initial

    Returns
    -------
    rows : list of TensorReport
        The network's tensors in its order, then those that only the source has.

    Raises
    ------
    ModelError
        If a name of `freeze` is unknown.
    """
    held = set(_below(network, initial.freeze))
    given, rows = _given(network, initial), []
    for name, tensor in network.state_dict().items():
        source, found = given.get(name, ("", None))
        status = MISSING if found is None else LOADED if found.shape == tensor.shape else OTHER_SHAPE
        rows.append(
            TensorReport(name, source, status, _shape(tensor), _shape(initial.tensors.get(source)), name in held)
        )
    used = {source for source, _ in given.values()}
    surplus = [name for name in initial.tensors if name not in used]
    return rows + [TensorReport(name, name, UNUSED, "", _shape(initial.tensors[name]), False) for name in surplus]


def _given(network: nn.Module, initial: Initial) -> dict[str, tuple[str, Tensor]]:
    """What the source has for each tensor of a network: its name there, and the tensor."""
    names = vgg.sources(network, initial.tensors, source=initial.source)
    given = {name: (name, initial.tensors[name]) for name in network.state_dict() if name in initial.tensors}
    for name, source in names.items():
        given[name] = source, vgg.for_input(initial.tensors[source], channels=network.get_parameter(name).shape[1:2])
    return given


def summary(rows: Sequence[TensorReport]) -> dict[str, int]:
    """How many tensors have each status, and how many of the loaded ones are frozen.

    Parameters
    ----------
    rows : sequence of TensorReport

    Returns
    -------
    counts : dict of str to int
    """
    counts = {status: sum(row.status == status for row in rows) for status in (LOADED, OTHER_SHAPE, MISSING, UNUSED)}
    return {**counts, "frozen": sum(row.is_frozen for row in rows)}


def _freeze(network: nn.Module, names: Sequence[str]) -> list[nn.Module]:
    modules = dict(network.named_modules())
    frozen = [modules[name] for name in names]
    for module in frozen:
        module.requires_grad_(False)
    if not learning(network):
        raise ModelError(f"freeze is {list(names)}, which is the whole network: nothing would learn; freeze less")
    return frozen


def _below(network: nn.Module, names: Sequence[str]) -> Iterator[str]:
    """Names of the tensors in the named modules."""
    modules = dict(network.named_modules())
    for name in names:
        if not name or name not in modules:
            known = [known for known in modules if known and known.count(".") < 2]
            raise ModelError(f"freeze names {name!r}, which is no part of this network; known: {', '.join(known)}")
        yield from (f"{name}.{tensor}" for tensor in modules[name].state_dict())


def _refuse_values(initial: Initial, loaded: Sequence[str]) -> None:
    for name in loaded:
        if not bool(torch.isfinite(initial.tensors[name]).all()):
            raise ModelError(
                f"init_from: {name} of {initial.source} holds values that are not finite: its training diverged, or "
                "the file is damaged; begin with another model"
            )


def _say(rows: Sequence[TensorReport], network: nn.Module, initial: Initial) -> None:
    counts = summary(rows)
    LOGGER.info(
        "init_from: %d of %d tensors begin with those of %s",
        counts[LOADED],
        len(rows) - counts[UNUSED],
        initial.source,
    )
    for row in rows:
        if row.status != LOADED:
            LOGGER.info(
                "init_from: %s %s: %s (here %s, there %s)",
                row.tensor,
                "isn't used" if row.status == UNUSED else "begins at random",
                row.status,
                row.shape or "none",
                row.source_shape or "none",
            )
    LOGGER.info(
        "%d of %d parameters learn%s",
        sum(parameter.numel() for parameter in learning(network)),
        sum(parameter.numel() for parameter in network.parameters()),
        f"; frozen: {', '.join(initial.freeze)}" if initial.freeze else "",
    )


def _shape(tensor: Tensor | None) -> str:
    return "" if tensor is None else "x".join(map(str, tensor.shape)) or "scalar"


def _examples(names: Iterable[str]) -> str:
    listed = sorted(names)
    return ", ".join(listed[:MOST_NAMED]) + (", ..." if len(listed) > MOST_NAMED else "")
