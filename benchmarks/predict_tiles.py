"""Prediction by tiles against MONAI's and nnU-Net's sliding windows: time, memory, and what the seams cost.

    python benchmarks/predict_tiles.py                                  # 256^3, 384^3, slices of 1000^2; one core
    python benchmarks/predict_tiles.py --edge 96 --edge-share 96 --edge-2d 256 --rounds 1
    python benchmarks/predict_tiles.py --peers path/to/python           # of an environment that has the peers

Same random weights, image, float32 and core for all, rounds interleaved, ratios are medians over the rounds. Ours is
from grey values to stored probabilities, halos and all; the peers get normalised numbers and return logits. Everything
is held to the network's output over the whole image at once.
"""

import argparse
import json
import math
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import membranes
import numpy as np
import timing
import torch
from numpy.typing import NDArray
from torch import nn

from voxloom import devices, halo, inference, networks, predictor, tile_memory

PEERS = {"monai": "MONAI", "nnunet": "nnU-Net"}
LEAST = {("monai", 8): 3.5, ("nnunet", 8): 4.0, ("monai", "exact"): 1.7, ("nnunet", "exact"): 1.9}
LEAST_SHARE = 0.9
MOST_DIFFERENCE = 1e-5
MEMORY_MIB = 4096


@dataclass(frozen=True)
class Scene:
    """A network and what it predicts.

    Parameters
    ----------
    words : str
        For the records.
    network : torch.nn.Module
    settings : dict
        A model's.
    image : ndarray of uint8, shape (Z, Y, X)
    """

    words: str
    network: nn.Module
    settings: dict[str, Any]
    image: NDArray[np.uint8]

    @property
    def batch(self) -> torch.Tensor:
        """What the peers are given: (N, C, [Z,] Y, X), normalised."""
        ready = self.prepared().normalisation.apply(self.image)
        is_3d = self.settings["network"]["dimensions"] == 3
        return torch.from_numpy(ready[None, None] if is_3d else ready[:, None])

    def prepared(self) -> predictor.Predictor:
        return predictor.prepare(self.network, self.settings, memory_mib=MEMORY_MIB, device="cpu", precision="float32")

    def predict(self, halo_voxels: int | str, *, memory_mib: int = 2 * MEMORY_MIB) -> NDArray[np.uint8]:
        """From grey values to stored probabilities."""
        out = np.empty(self.image.shape, dtype=np.uint8)
        inference.predict_volume(
            self.network, self.settings, self.image, out, memory_mib=memory_mib, threads=1, device="cpu",
            precision="float32", halo_voxels=halo_voxels, description="",
        )  # fmt: skip
        return out


def scene(words: str, shape: tuple[int, int, int], **keys: Any) -> Scene:
    """Random weights, running means and deviations, and grey values."""
    generator, random = torch.Generator().manual_seed(0), np.random.default_rng(0)
    model = membranes.complete(network=keys, optimiser={"learning_rate": 1e-3}, precision="float32")
    settings = {
        **model,
        "network": networks.resolved(model["network"]),
        "normalisation": {"name": "zscore", "mean": 120.0, "deviation": 40.0, "dtype": "uint8"},
        "spacing_um": [1.0, 1.0, 1.0],
    }
    network = networks.build(settings["network"], seed=0).eval()
    for name, buffer in network.named_buffers():
        if buffer.dtype == torch.float32:
            noise = torch.rand(buffer.shape, generator=generator)
            buffer.copy_(noise * 0.2 if name.endswith("mean") else 0.5 + noise)
    return Scene(words, network, settings, random.integers(0, 256, shape, dtype=np.uint8))


class Peer:
    """A peer's process, which runs when it is called."""

    def __init__(self, python: str, folder: Path, *words: str) -> None:
        self.folder = folder
        self._process = subprocess.Popen(
            [python, str(Path(__file__).with_name("predict_peer.py")), str(folder), *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**timing.environment(1), "PYTHONPATH": str(Path(inference.__file__).parents[1])},
        )
        self.missing: str | None = self._said().get("missing")

    def __call__(self) -> None:
        self._ask("run")

    def probability(self) -> NDArray[np.float32]:
        """Of a run whose time doesn't count."""
        self._ask("save probability.npy")
        return 1 / (1 + np.exp(-np.load(self.folder / "probability.npy")))

    def end(self) -> None:
        self._process.stdin.close()
        self._process.wait()

    def _ask(self, line: str) -> None:
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        self._said()

    def _said(self) -> dict[str, Any]:
        for line in self._process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        raise SystemExit(f"{self._process.args} ended with status {self._process.wait()}")


def write_for_peers(scene: Scene, folder: Path) -> None:
    (folder / "network.json").write_text(json.dumps(scene.settings["network"]), encoding="utf-8")
    torch.save(scene.network.state_dict(), folder / "weights.pt")
    np.save(folder / "image.npy", scene.batch.numpy())


def at_once(scene: Scene) -> NDArray[np.float32]:
    """The whole image through the network, of the image's shape."""
    factor = networks.size_factor(scene.settings["network"])
    if any(size % step for size, step in zip(scene.image.shape, factor, strict=True)):
        raise SystemExit(f"edges must be multiples of {factor}, got {scene.image.shape}")
    with torch.inference_mode():
        parts = [torch.sigmoid(scene.network(one[None]))[0, 0].numpy() for one in scene.batch]
    return parts[0] if scene.settings["network"]["dimensions"] == 3 else np.stack(parts)


def probability(ready: predictor.Predictor, image: NDArray[np.uint8]) -> NDArray[np.float32]:
    result = np.empty(image.shape, dtype=np.float32)
    ready.region(image, (0, 0, 0), image.shape, result)
    return result


def tiles_of(scene: Scene, halo_voxels: int | str) -> list[tuple[int, ...]]:
    """Shapes of the batches that the network is given."""
    shapes: list[tuple[int, ...]] = []
    forward = predictor.Predictor.forward

    def recording(self: predictor.Predictor, batch: torch.Tensor) -> torch.Tensor:
        shapes.append(tuple(batch.shape))
        return forward(self, batch)

    predictor.Predictor.forward = recording
    try:
        scene.predict(halo_voxels)
    finally:
        predictor.Predictor.forward = forward
    return shapes


def one_tile(scene: Scene, shape: tuple[int, ...], *, passes: int) -> Callable[[], None]:
    """Forward passes of the network as prediction runs it, alone; each but the first finds the former one's memory."""
    ready = scene.prepared()
    batch = torch.randn(shape, generator=torch.Generator().manual_seed(0))

    def run() -> None:
        memory = tile_memory.TileMemory()
        for _ in range(passes):
            with torch.inference_mode(), memory.of_forward_pass(shape):
                ready.network(batch)

    return run


def against_peers(scene: Scene, options: argparse.Namespace, *, window: int, halos: list[int | str]) -> None:
    """Ours with each halo, beside each peer with windows that overlap by half."""
    least = LEAST if scene.settings["network"]["dimensions"] == 3 else {}
    whole = at_once(scene)
    differences = {}
    for each in halos:
        ready, _ = halo.chosen(scene.prepared(), scene.image, halo_voxels=each)
        differences[each] = float(np.abs(probability(ready, scene.image) - whole).max())
    with tempfile.TemporaryDirectory() as name:
        write_for_peers(scene, Path(name))
        peers = {kind: Peer(options.peers, Path(name), kind, str(window), "0.5", "gaussian") for kind in PEERS}
        there = {kind: peer for kind, peer in peers.items() if peer.missing is None}
        cases: dict[Any, Callable[[], object]] = {each: lambda each=each: scene.predict(each) for each in halos}
        seconds = timing.interleaved({**cases, **there}, rounds=options.rounds)
        for each in halos:
            for kind, peer in peers.items():
                title = f"{scene.words}, halo {each}, against {PEERS[kind]} at overlap 0.5"
                if peer.missing is not None:
                    timing.skip(title, target="T12", why=f"{peer.missing} is not installed")
                    continue
                record_peer(title, seconds[each], seconds[kind], least.get((kind, each), 1.0), differences[each], whole,
                            peer)  # fmt: skip
        for peer in peers.values():
            peer.end()


def record_peer(
    title: str,
    ours: list[float],
    theirs: list[float],
    least: float,
    difference: float,
    whole: NDArray[np.float32],
    peer: Peer,
) -> None:
    times = timing.ratio(theirs, ours)
    their_difference = float(np.abs(peer.probability().reshape(whole.shape) - whole).max())
    timing.record(
        title,
        target="T12",
        ours=float(np.median(ours)),
        peer=float(np.median(theirs)),
        ratio=times,
        limit=f"≥ {least:g}×",
        holds=times >= least,
        identical=f"largest difference to the whole {difference:.1g}, the peer's {their_difference:.1g}",
        rounds=len(ours),
    )


def exactness(scene: Scene) -> None:
    """The largest difference of the exact halo to the whole."""
    difference = float(np.abs(probability(scene.prepared(), scene.image) - at_once(scene)).max())
    timing.record(
        f"{scene.words}, exact halo against the whole at once",
        target="T12",
        ours=difference,
        peer=None,
        ratio=None,
        limit=f"largest difference ≤ {MOST_DIFFERENCE:g}",
        holds=difference <= MOST_DIFFERENCE,
        identical=difference <= MOST_DIFFERENCE,
    )


def print_peaks(scene: Scene, halo_voxels: int | str, shape: tuple[int, ...]) -> None:
    """Of prediction and of one tile alone, each after having run once, so that what is compiled does not count."""
    alone = one_tile(scene, shape, passes=2)
    scene.predict(halo_voxels)
    alone()
    print(json.dumps({"mib": timing.peak_mib(lambda: scene.predict(halo_voxels)), "tile": timing.peak_mib(alone)}))


def share_of_the_forward_rate(
    scene: Scene, halo_voxels: int | str, *, rounds: int, peaks_of: Callable[..., dict[str, float]]
) -> None:
    """How much of the time the network would take by itself for all that it is given."""
    shapes = tiles_of(scene, halo_voxels)
    usual = max(set(shapes), key=math.prod)
    given = sum(int(np.prod(shape)) for shape in shapes)
    cases = {"whole": lambda: scene.predict(halo_voxels), "tile": one_tile(scene, usual, passes=len(shapes))}
    seconds = timing.interleaved(cases, rounds=rounds)
    network = [given / (len(shapes) * math.prod(usual)) * alone for alone in seconds["tile"]]
    share = timing.ratio(network, seconds["whole"])
    # the image is there already; the result and the image of the block that is read ahead are counted
    peaks = [peaks_of(halo_voxels, usual) for _ in range(rounds)]
    peak, tile_peak = (float(np.median([each[key] for each in peaks])) for key in ("mib", "tile"))
    allowed = 1.1 * tile_peak + 3 * scene.image.nbytes / 2**20 + 16
    timing.record(
        f"{scene.words}, halo {halo_voxels}, share of one tile's forward rate",
        target="T12",
        ours=float(np.median(seconds["whole"])),
        peer=float(np.median(network)),
        ratio=share,
        limit=f"≥ {LEAST_SHARE:g}; peak ≤ result + image + one tile ({allowed:.0f} MiB)",
        holds=share >= LEAST_SHARE and peak <= allowed,
        peak_mib=peak,
        compute_factor=given / scene.image.size,
        tile=list(usual),
        rounds=rounds,
    )


def folding(scene: Scene, *, rounds: int) -> None:
    """The same tiles with batch normalisation as a layer of its own."""
    ready = scene.prepared()
    layout = devices.memory_format(scene.settings["network"]["dimensions"])
    before = replace(ready, network=scene.network.to(memory_format=layout))
    cases = {"before": lambda: probability(before, scene.image), "folded": lambda: probability(ready, scene.image)}
    seconds = timing.interleaved(cases, rounds=rounds)
    difference = float(np.abs(cases["before"]() - cases["folded"]()).max())
    times = timing.ratio(seconds["before"], seconds["folded"])
    timing.record(
        f"{scene.words}, batch normalisation folded against a layer of its own",
        target="T12",
        ours=float(np.median(seconds["folded"])),
        peer=float(np.median(seconds["before"])),
        ratio=times,
        limit="≥ 1×",
        holds=times >= 1,
        identical=f"largest difference {difference:.1g}",
        rounds=rounds,
    )


def tile_size(scene: Scene, *, rounds: int) -> None:
    """Tiles against whole slices."""

    def whole_slices() -> None:
        edges = predictor.TILE_EDGES["cpu"]
        predictor.TILE_EDGES["cpu"] = (max(scene.image.shape), edges[1])
        try:
            scene.predict("exact")
        finally:
            predictor.TILE_EDGES["cpu"] = edges

    seconds = timing.interleaved({"tiles": lambda: scene.predict("exact"), "slices": whole_slices}, rounds=rounds)
    times = timing.ratio(seconds["slices"], seconds["tiles"])
    timing.record(
        f"{scene.words}, tiles against whole slices",
        target="T12",
        ours=float(np.median(seconds["tiles"])),
        peer=float(np.median(seconds["slices"])),
        ratio=times,
        limit="≥ 0.95×",
        holds=times >= 0.95,
        rounds=rounds,
    )


def scenes(options: argparse.Namespace) -> dict[str, Scene]:
    deep, large = (
        scene(f"3-D U-Net of 3 levels, base 8, {edge}³", (edge,) * 3, dimensions=3, widths=[8, 16, 32])
        for edge in (options.edge, options.edge_share)
    )
    return {
        "deep": deep,
        "large": large,
        "flat": scene(
            f"shallow 2-D U-Net, {options.slices} slices of {options.edge_2d}²",
            (options.slices, options.edge_2d, options.edge_2d),
            widths=[32, 64, 128],
        ),
    }


def peaks_of(
    options: argparse.Namespace, name: str, halo_voxels: int | str, shape: tuple[int, ...]
) -> dict[str, float]:
    """What `print_peaks` says in a process of its own."""
    sizes = {
        "--edge": options.edge,
        "--edge-share": options.edge_share,
        "--edge-2d": options.edge_2d,
        "--slices": options.slices,
    }
    words = [str(word) for pair in sizes.items() for word in pair]
    said, *_ = timing.said_by([__file__, *words, "--peaks-of", json.dumps([name, halo_voxels, shape])])
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--edge", type=int, default=256, help="of the 3-D volume")
    parser.add_argument("--edge-share", type=int, default=384, help="of the 3-D volume of many tiles")
    parser.add_argument("--edge-2d", type=int, default=1000, help="of the slices")
    parser.add_argument("--slices", type=int, default=2)
    parser.add_argument("--window", type=int, default=96, help="of the peers, in 3-D")
    parser.add_argument("--window-2d", type=int, default=400, help="of the peers, in 2-D")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", default=sys.executable, help="Python of an environment that has MONAI and nnU-Net")
    parser.add_argument("--peaks-of", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    timing.pin(1)
    if options.peaks_of:
        name, halo_voxels, shape = options.peaks_of
        print_peaks(scenes(options)[name], halo_voxels, tuple(shape))
        return
    deep, large, flat = scenes(options).values()
    against_peers(deep, options, window=options.window, halos=[8, "exact"])
    share = partial(share_of_the_forward_rate, rounds=options.rounds)
    share(large, 8, peaks_of=partial(peaks_of, options, "large"))
    share(deep, 8, peaks_of=partial(peaks_of, options, "deep"))
    share(deep, "exact", peaks_of=partial(peaks_of, options, "deep"))
    against_peers(flat, options, window=options.window_2d, halos=["exact"])
    share(flat, "exact", peaks_of=partial(peaks_of, options, "flat"))
    tile_size(flat, rounds=options.rounds)
    for each in (deep, flat):
        exactness(each)
        folding(each, rounds=options.rounds)


if __name__ == "__main__":
    main()
