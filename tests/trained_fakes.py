"""A small network with weights that matter, as if it had been trained on a folder of striped images."""

from __future__ import annotations

from pathlib import Path

import torch
from randomised_weights import randomise

from mnv3search.architecture import Architecture, HeadSpec, StemSpec
from mnv3search.blocks import BlockSpec, SqueezeExciteSpec
from mnv3search.network.build import build_network
from mnv3search.training.data.preprocessing import Preprocessing
from mnv3search.training.trained import TrainedNetwork, save_trained

CLASSES = ("class_0", "class_1", "class_2")
SIDE = 16
ARCHITECTURE = Architecture(
    StemSpec(8),
    (
        BlockSpec(3, 16, 8, 1, "relu", SqueezeExciteSpec(8)),
        BlockSpec(5, 24, 16, 2, "hard_swish", SqueezeExciteSpec(8)),
    ),
    HeadSpec(24, 16),
    resolution=SIDE,
    classes=len(CLASSES),
)


def fake_trained(architecture: Architecture = ARCHITECTURE, side: int = SIDE, seed: int = 0) -> TrainedNetwork:
    """Random weights whose activations stay near 1; ``side`` is what images are prepared at."""
    network = build_network(architecture)
    randomise(network, torch.randn(8, 3, side, side, generator=torch.Generator().manual_seed(seed)), seed)
    names = tuple(f"class_{number}" for number in range(architecture.classes))
    return TrainedNetwork(architecture, network.eval(), names, Preprocessing(side), {"val_accuracy": 12.5, "epoch": 3})


def saved_fake(folder: Path) -> Path:
    """:func:`fake_trained` in the folder of a run; returns the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    save_trained(folder / "best.safetensors", fake_trained())
    return folder
