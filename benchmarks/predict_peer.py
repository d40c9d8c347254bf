"""A peer's sliding window over one volume or slice, run whenever predict_tiles.py asks; prints what each run took.

    python benchmarks/predict_peer.py FOLDER {monai,nnunet} WINDOW OVERLAP {gaussian,constant}

FOLDER holds network.json, weights.pt and image.npy, normalised. Each line "run" on standard input is one run, "save
NAME" writes its logits. In a process of its own, so that the peer may live in an environment of its own.
"""

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from voxloom import networks


def network_of(folder: Path) -> nn.Module:
    keys = json.loads((folder / "network.json").read_text(encoding="utf-8"))
    network = networks.build(keys, seed=0)
    network.load_state_dict(torch.load(folder / "weights.pt", weights_only=True))
    return network.eval()


def monai(network: nn.Module, image: Tensor, window: int, overlap: float, mode: str) -> Callable[[], Tensor]:
    """Windows of the image, an (N, C, [Z,] Y, X) tensor whose slices are predicted one by one in 2-D."""
    from monai.inferers import sliding_window_inference

    def run() -> Tensor:
        parts = [
            sliding_window_inference(one[None], (window,) * (image.ndim - 2), 1, network, overlap=overlap, mode=mode)
            for one in image
        ]
        return torch.cat(parts)

    return run


def nnunet(network: nn.Module, image: Tensor, window: int, overlap: float, mode: str) -> Callable[[], Tensor]:
    """nnU-Net's predictor with the network put in; it has no constant weights that count overlaps evenly."""
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    class Configuration:
        patch_size = (window,) * (image.ndim - 2)

    class Labels:
        num_segmentation_heads = 1

    predictor = nnUNetPredictor(
        tile_step_size=1 - overlap,
        use_gaussian=mode == "gaussian",
        use_mirroring=False,
        perform_everything_on_device=False,
        device=torch.device("cpu"),
        verbose=False,
        allow_tqdm=False,
    )
    predictor.network = network
    predictor.configuration_manager, predictor.label_manager = Configuration(), Labels()
    predictor.list_of_parameters = [network.state_dict()]
    predictor.allowed_mirroring_axes = None
    channels_first = image.transpose(0, 1) if image.ndim == 4 else image[0]  # slices are its first axis of space

    def run() -> Tensor:
        logits = predictor.predict_sliding_window_return_logits(channels_first).float()
        return logits.transpose(0, 1) if image.ndim == 4 else logits[None]

    return run


def main() -> None:
    folder, peer, window, overlap, mode = sys.argv[1:]
    torch.set_num_threads(len(os.sched_getaffinity(0)))
    image = torch.from_numpy(np.load(Path(folder) / "image.npy"))
    try:
        run = {"monai": monai, "nnunet": nnunet}[peer](
            network_of(Path(folder)), image, int(window), float(overlap), mode
        )
    except ModuleNotFoundError as error:
        print(json.dumps({"missing": error.name}), flush=True)
        return
    print(json.dumps({"ready": True}), flush=True)
    for line in sys.stdin:
        word, _, name = line.strip().partition(" ")
        begin = time.perf_counter()
        with torch.inference_mode():
            logits = run()
        seconds = time.perf_counter() - begin
        if word == "save":
            np.save(Path(folder) / name, logits.numpy())
        print(json.dumps({"seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()
