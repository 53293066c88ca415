"""A training in several processes: ``torchrun … training_processes.py FOLDER`` leaves what each rank ended with."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path

from safetensors.torch import save_file
from training_fakes import PREPROCESSING, RECIPE, splits, tiny_network

from mnv3search.training.data.augmentation import Augmentation
from mnv3search.training.devices import accelerator
from mnv3search.training.loop import train_network


def main() -> None:
    folder = Path(sys.argv[1])
    recipe = replace(RECIPE, epochs=2, augmentation=Augmentation(flip=True), dropout=0.0)
    result = train_network(tiny_network(), splits(), recipe, preprocessing=PREPROCESSING, folder=folder)
    rank = os.environ.get("RANK", "0")
    save_file(dict(result.trained.network.state_dict()), folder / f"rank_{rank}.safetensors")
    (folder / f"rank_{rank}.txt").write_text(str(accelerator().num_processes))
    figures = [{"top1": r.val_top1, "loss": r.val_loss, "train_loss": r.train_loss} for r in result.history]
    (folder / f"rank_{rank}.json").write_text(json.dumps(figures))


if __name__ == "__main__":
    main()
