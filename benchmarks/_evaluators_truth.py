"""Real trainings of networks of ``mnv3_small_32`` on CIFAR-10, as a truth for evaluators; goes on where it stopped."""

from __future__ import annotations

import argparse
import csv
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mnv3search.architecture import Architecture, from_mapping, to_mapping
from mnv3search.cost import count
from mnv3search.files import append_lines
from mnv3search.space import load_space
from mnv3search.training.data.splits import DataSplits

SPACE = "mnv3_small_32"
SAMPLED = 400
RECIPE = "small_32"


def stratified(networks: int, seed: int = 0) -> list[Architecture]:
    """One random network from each of ``networks`` equal strata by MAdds of a uniform sample, in a random order."""
    sample = load_space(SPACE).sample(SAMPLED, seed)
    by_size = sorted(sample, key=lambda architecture: count(architecture).madds)
    rng = np.random.default_rng(seed)
    chosen = [by_size[int(rng.choice(stratum))] for stratum in np.array_split(np.arange(SAMPLED), networks)]
    return [chosen[i] for i in rng.permutation(networks)]


def read_truths(path: Path) -> list[dict[str, Any]]:
    """The finished trainings of ``path``, each with its architecture; none where it does not exist."""
    if not path.exists():
        return []
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
    return [row | {"architecture": from_mapping(row["architecture"])} for row in rows]


def validated(out: Path) -> list[list[float]]:
    """Validation top-1 after each epoch of the finished trainings, in the order of the truths; empty where not kept."""
    files = [out / f"network-{row['number']}" / "history.csv" for row in read_truths(out / "truths.jsonl")]
    if not all(file.exists() for file in files):
        return []
    return [[float(row["val_top1"]) for row in csv.DictReader(file.read_text().splitlines())] for file in files]


def train_truths(
    architectures: Sequence[Architecture], data: Path, images: int, epochs: int, out: Path, seed: int = 0
) -> None:
    """Train what is missing in ``out``/truths.jsonl on a stable subset; a line each, as soon as it is there."""
    from mnv3search.training.data.open_data import open_data
    from mnv3search.training.data.splits import stable_subset

    out.mkdir(parents=True, exist_ok=True)
    before = read_truths(out / "truths.jsonl")
    if any((row["images"], row["epochs"], row["seed"]) != (images, epochs, seed) for row in before):
        raise SystemExit(f"{out} holds trainings of other images, epochs or seed; give another --out")
    done = {row["architecture"] for row in before}
    splits = open_data(str(data), scan=False)
    val = stable_subset(splits.val, min(1000, len(splits.val)))
    used = DataSplits(stable_subset(splits.train, images), val, splits.test)
    for number, architecture in enumerate(architectures):
        if architecture not in done:
            began = time.perf_counter()
            top1 = _test_top1(architecture, used, epochs, out / f"network-{number}", seed)
            row = {
                "number": number, "top1": top1, "seconds": time.perf_counter() - began, "images": images,
                "epochs": epochs, "seed": seed, "architecture": to_mapping(architecture),
            }  # fmt: skip
            append_lines(out / "truths.jsonl", [json.dumps(row)])
            print(f"{number}: {top1:.2f} % in {row['seconds']:.0f} s", flush=True)


def _test_top1(architecture: Architecture, data: DataSplits, epochs: int, folder: Path, seed: int) -> float:
    """Percent of the test images that the network gets right after its training, which goes on where it stopped."""
    import torch

    from mnv3search.network.build import build_network
    from mnv3search.training.data.preprocessing import Preprocessing
    from mnv3search.training.evaluation import evaluate_network
    from mnv3search.training.loop import train_network
    from mnv3search.training.recipe import load_recipe

    assert data.test is not None
    preprocessing = Preprocessing(architecture.resolution)
    resume = (folder / "last.safetensors").exists()
    folder.mkdir(exist_ok=True)
    torch.manual_seed(seed)
    network = build_network(architecture)
    train_network(
        network, data, load_recipe(RECIPE).for_epochs(epochs), preprocessing=preprocessing, seed=seed, folder=folder,
        resume=resume,
    )  # fmt: skip
    # the last epoch's weights, not the best on the validation images: a choice would add chance
    return evaluate_network(network, data.test, preprocessing).top1


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, required=True, help="cifar10.zip, or a folder of it")
    parser.add_argument("--out", type=Path, default=Path("runs/evaluators"))
    parser.add_argument("--networks", type=int, default=12)
    parser.add_argument("--images", type=int, default=10_000)
    parser.add_argument("--epochs", type=int, default=3)
    args = parser.parse_args()
    train_truths(stratified(args.networks), args.data, args.images, args.epochs, args.out)


if __name__ == "__main__":
    main()
