"""``python -m mnv3search.latency.runtimes.litert_conversion ARCHITECTURE.json MODEL.tflite``, in a process of its own.

The converter takes long, prints much and starts threads of its own, none of which belongs where networks are timed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from mnv3search.architecture import load_architecture
from mnv3search.latency.runtimes.base import WEIGHT_SEED, input_image


def main(given: Path, made: Path) -> None:
    """Write the network of an architecture file as a LiteRT model; input and output as torch's."""
    import litert_torch
    import torch

    from mnv3search.network.folded import folded_network

    architecture = load_architecture(given)
    example = (torch.from_numpy(input_image(architecture)),)
    litert_torch.convert(folded_network(architecture, WEIGHT_SEED), example).export(str(made))


if __name__ == "__main__":
    main(Path(sys.argv[-2]), Path(sys.argv[-1]))
