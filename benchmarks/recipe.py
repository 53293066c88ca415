"""Tune the recipe small_32: short trainings of one network on a subset of CIFAR-10, one change at a time.

``python -m benchmarks.recipe --data cifar10.zip`` trains the reference network of ``mnv3_small_32`` by each variant and
keeps ``results/<today>-recipe/``. Each training is kept as it ends in ``--work``, and is not repeated.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks._results import write_results
from mnv3search.space import load_space
from mnv3search.training.data.augmentation import Augmentation
from mnv3search.training.data.images import LabelledImages
from mnv3search.training.data.open_data import open_data
from mnv3search.training.data.preprocessing import Preprocessing
from mnv3search.training.data.splits import stable_subset
from mnv3search.training.recipe import Recipe, load_recipe

IMAGES, JUDGED, EPOCHS, HALF, SEED = 10_000, 2_000, 4, 2, 0
PLAIN = Augmentation(crop="pad", flip=True)
SGD: dict[str, Any] = {
    "optimizer": "sgd", "learning_rate": 0.1, "reference_batch": 128, "batch_size": 128, "nesterov": True,
    "weight_decay": 5e-4, "schedule": "cosine", "warmup_epochs": 0.8, "label_smoothing": 0.1, "norm_momentum": 0.1,
    "dropout": 0.1, "ema_decay": None, "clip_norm": None, "augmentation": PLAIN,
}  # fmt: skip
VARIANTS: Mapping[str, Mapping[str, Any]] = {
    "sgd 0.1, batches of 128": SGD,
    "batches of 64": SGD | {"batch_size": 64, "reference_batch": 64},
    "batches of 32, rate 0.04": SGD | {"batch_size": 32, "reference_batch": 32, "learning_rate": 0.04},
    "batches of 32": SGD | {"batch_size": 32, "reference_batch": 32},
    "adamw 0.003, batches of 64": SGD | {
        "batch_size": 64, "reference_batch": 64, "optimizer": "adamw", "learning_rate": 3e-3, "squares_decay": 0.999,
        "weight_decay": 0.05,
    },
    "rmsprop_tf 0.005, batches of 64": SGD | {
        "batch_size": 64, "reference_batch": 64, "optimizer": "rmsprop_tf", "learning_rate": 5e-3,
        "weight_decay": 1e-5,
    },
    "batches of 32, rate 0.04, average 0.99": SGD | {
        "batch_size": 32, "reference_batch": 32, "learning_rate": 0.04, "ema_decay": 0.99,
    },
}  # fmt: skip
README = """
# Tuning the recipe `small_32`

The reference network of `mnv3_small_32` (MobileNetV3-Small with a stem of stride 1) from scratch on a stable subset of
{images:,} training images of CIFAR-10, {epochs} epochs, seed {seed}; top-1 on {judged:,} held-out images of the
training set. Each line is SGD at 0.1 on batches of 128 with the changes that it names. One seed: differences below
about {noise:.1f} points (one standard error of {judged:,} images) say little.

| recipe | after {epochs} epochs: top-1 % | loss | after {half}: top-1 % |
|---|---:|---:|---:|
{rows}
{missing}
Shipped: {chosen}.
"""


def main() -> None:
    """Train every variant that is not kept yet, then write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="CIFAR-10 as an image folder or a zip archive of one")
    parser.add_argument("--work", type=Path, default=Path("runs/recipe"), help="where finished trainings are kept")
    parser.add_argument("--report", action="store_true", help="train nothing; write what is kept")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    splits = open_data(options.data, scan=False)
    train, val = stable_subset(splits.train, IMAGES), stable_subset(splits.val, JUDGED)
    found: dict[str, Any] = {}
    for name, change in VARIANTS.items():
        kept = options.work / f"{name.replace(' ', '-').replace(',', '')}.json"
        if not kept.exists() and not options.report:
            kept.write_text(json.dumps(train_variant(recipe(change), train, val), indent=1))
        if kept.exists():
            found[name] = json.loads(kept.read_text())
    folder = write_results("recipe", numbers(found), readme(found), seeds=[SEED])
    print(folder)


def recipe(change: Mapping[str, Any]) -> Recipe:
    """``small_32`` with a variant's values, for the short trainings."""
    return replace(load_recipe("small_32"), **change, epochs=EPOCHS)


def train_variant(variant: Recipe, train: LabelledImages, val: LabelledImages) -> dict[str, Any]:
    """The history of one training."""
    import torch

    from mnv3search.network.build import build_network
    from mnv3search.training.loop import train_network

    torch.manual_seed(SEED)
    network = build_network(load_space("mnv3_small_32").reference)
    result = train_network(
        network, (train, val), variant, preprocessing=Preprocessing(32), seed=SEED,
        on_epoch=lambda record: print(variant.optimizer, variant.batch_size, record, file=sys.stderr, flush=True),
    )  # fmt: skip
    return {"recipe": variant.to_mapping(), "history": [record.to_mapping() for record in result.history]}


def numbers(found: Mapping[str, Any]) -> dict[str, Any]:
    """What was found, by variant; times are left out, as other work ran beside the trainings."""
    timed = {"seconds", "images_per_second"}
    variants = {
        name: entry | {"history": [{k: v for k, v in r.items() if k not in timed} for r in entry["history"]]}
        for name, entry in found.items()
    }
    return {"network": "mnv3_small_32 reference", "images": IMAGES, "judged": JUDGED, "variants": variants}


def readme(found: Mapping[str, Any]) -> str:
    """The table, best first."""
    ordered = sorted(found.items(), key=lambda pair: -pair[1]["history"][-1]["val_top1"])
    rows = "\n".join(
        f"| {name} | {end['val_top1']:.2f} | {end['val_loss']:.3f} | {entry['history'][HALF - 1]['val_top1']:.2f} |"
        for name, entry in ordered
        for end in [entry["history"][-1]]
    )
    share = ordered[0][1]["history"][-1]["val_top1"] / 100
    left = [name for name in VARIANTS if name not in found]
    missing = f"\nNot trained: {'; '.join(left)}.\n" if left else ""
    noise = 100 * (share * (1 - share) / JUDGED) ** 0.5
    return README.format(
        images=IMAGES, judged=JUDGED, epochs=EPOCHS, half=HALF, seed=SEED, rows=rows, noise=noise, missing=missing,
        chosen=CHOSEN,
    )  # fmt: skip


CHOSEN = "SGD at 0.04 on batches of 32, the best line, though the next three are within chance; a warm-up of one epoch"

if __name__ == "__main__":
    main()
