"""Trainings of the benchmark of NetAdapt: from scratch, and after pruning; each resumes where it stopped."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from benchmarks._netadapt_setup import Records, preprocessing
from mnv3search.training.recipe import Recipe

if TYPE_CHECKING:
    from mnv3search.network.build import MobileNetwork
    from mnv3search.training.data.splits import DataSplits
    from mnv3search.training.trained import TrainedNetwork


class Talk:
    """Progress as plain lines, one every half minute."""

    def __init__(self, name: str) -> None:
        self._name, self._last = name, 0.0

    def stage(self, name: str, total: int | None = None) -> None:
        """A stage begins."""
        print(f"{self._name}: {name}", flush=True)

    def advance(self, done: int, detail: str = "", total: int | None = None) -> None:
        """Steps are done."""
        if time.monotonic() - self._last > 30:
            self._last = time.monotonic()
            print(f"{time.strftime('%H:%M:%S')} {self._name}: {done} {detail}", flush=True)

    def note(self, text: str) -> None:
        """A sentence."""
        print(f"{self._name}: {text}", flush=True)


def train_and_judge(
    name: str, network: MobileNetwork, splits: DataSplits, recipe: Recipe, seed: int, folder: Path, records: Records,
    **facts: Any,
) -> dict[str, Any]:  # fmt: skip
    """Train in ``folder/name``, keep the accuracies in ``records``; done already, they are taken from there."""
    from mnv3search.training.loop import train_network

    if name in records.known:
        return records.known[name]
    place = folder / name
    place.mkdir(parents=True, exist_ok=True)
    result = train_network(
        network, splits, recipe, preprocessing=preprocessing(), seed=seed, folder=place,
        resume=(place / "last.safetensors").exists(), progress=Talk(name),
    )  # fmt: skip
    return records.keep(
        name, **judged(result.trained, splits), epochs=recipe.epochs, images=result.images,
        seconds=sum(record.seconds for record in result.history), seed=seed,
        file=f"{name}/best.safetensors", **facts,
    )  # fmt: skip


def judged(trained: TrainedNetwork, splits: DataSplits) -> dict[str, float]:
    """Top-1 of the validation and the test images, percent."""
    from mnv3search.training.evaluation import evaluate_network

    assert splits.test is not None
    val = evaluate_network(trained.network, splits.val, trained.preprocessing).top1
    return {"val_top1": val, "test_top1": evaluate_network(trained.network, splits.test, trained.preprocessing).top1}


def fresh(architecture: Any, seed: int) -> MobileNetwork:
    """A network with new weights from ``seed``."""
    import torch

    from mnv3search.network.build import build_network

    torch.manual_seed(seed)
    return build_network(architecture)
