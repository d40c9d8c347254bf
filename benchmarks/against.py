"""One measurement against several peers: interleaved rounds, peak memory, and a record a peer."""

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import timing

MIB = 2**20


def is_installed(module: str) -> bool:
    """Whether a peer can be imported."""
    return importlib.util.find_spec(module) is not None


@dataclass(frozen=True)
class Peer:
    """What does the same work.

    Parameters
    ----------
    call : callable
        Does it once; what it returns is kept while its memory is read.
    least : float
        How many times as long it should take as ours, at least.
    module : str
        What has to be installed for it.
    """

    call: Callable[[], object]
    least: float
    module: str


def compare(
    name: str,
    ours: Callable[[], object],
    peers: Mapping[str, Peer],
    *,
    target: str,
    rounds: int,
    identical: bool | str,
    most_mib: float,
    memory_words: str,
    also_holds: bool = True,
    traffic: float | None = None,
    **more: object,
) -> None:
    """Measure and print a record for each peer.

    Parameters
    ----------
    name : str
        What is done; a record adds the peer.
    ours : callable
    peers : mapping of str to Peer
        One whose module isn't installed is skipped, and said to be.
    target : str
    rounds : int
    identical : bool or str
        Whether the results are equal; words are taken as yes.
    most_mib : float
        What ours may add to the process.
    memory_words : str
        The same in words.
    also_holds : bool
        What else must be so.
    traffic : float, optional
        Bytes that the work reads and writes at least; a copy of as many is measured beside it.
    """
    there = {label: peer for label, peer in peers.items() if is_installed(peer.module)}
    for label, peer in peers.items():
        if label not in there:
            timing.skip(f"{name}, against {label}", target=target, why=f"{peer.module} is not installed")
    seconds = timing.interleaved({"ours": ours, **{k: v.call for k, v in there.items()}}, rounds=rounds)
    peak = timing.peak_mib(ours)
    fastest = float(np.median(seconds["ours"]))
    rate = {} if traffic is None else {"rate": traffic / fastest / 1e9, "roof": "memory copy"}
    for label, peer in there.items():
        faster = timing.ratio(seconds[label], seconds["ours"])
        timing.record(
            f"{name}, against {label}",
            target=target,
            ours=round(fastest, 4),
            peer=round(float(np.median(seconds[label])), 4),
            ratio=round(faster, 2),
            limit=f"at least {peer.least:g} times as fast, {memory_words}",
            peak_mib=round(peak, 1),
            peak_mib_peer=round(timing.peak_mib(peer.call), 1),
            identical=identical,
            holds=bool(faster >= peer.least and peak <= most_mib and identical and also_holds),
            **rate,
            **more,
        )
