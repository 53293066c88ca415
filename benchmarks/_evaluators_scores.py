"""What evaluators say of networks whose accuracy is known; kept as it comes, so that it goes on where it stopped."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._evaluators_truth import read_truths
from benchmarks.row_data import anb_rows, data_folder, ofa_rows
from mnv3search.accuracy.evaluator import Evaluator
from mnv3search.accuracy.registry import EvaluatorContext, load_evaluator
from mnv3search.architecture import Architecture
from mnv3search.files import append_lines
from mnv3search.training.data.splits import DataSplits

SCORES = ("madds", "parameters", "zen", "synflow", "gradient_norm")
FEWEST = 8
"""Trainings below which a correlation with them says nothing."""
ELSE = ("zen,resolution=64", "synflow,resolution=32")
SHORT = ("proxy:epochs=1,images=5000", "proxy:epochs=2,images=2500")


@dataclass(frozen=True, slots=True)
class Known:
    """Networks with their accuracy in percent, and where it is from."""

    name: str
    architectures: Sequence[Architecture]
    top1: Sequence[float]
    source: str


def known_networks(networks: int, truths: Path, seed: int = 0) -> list[Known]:
    """Two random samples of rows of the tables, where they are at hand, and the trainings of ``truths``."""
    found = []
    folder = data_folder()
    tables = {
        "Accel-NASBench": (anb_rows, "validation top-1 of its short ImageNet trainings"),
        "once-for-all": (ofa_rows, "ImageNet top-1 of subnets with inherited weights"),
    }
    for name, (read, source) in tables.items() if folder else ():
        assert folder is not None
        rows = read(folder)
        chosen = np.random.default_rng(seed).choice(len(rows), min(networks, len(rows)), replace=False)
        found.append(Known(name, [rows[i].architecture for i in chosen], [rows[i].top1 for i in chosen], source))
    trained = read_truths(truths)
    if len(trained) >= FEWEST:
        made = f"{trained[0]['epochs']} epochs on {trained[0]['images']:,} images each, judged on the test images"
        found.append(Known("CIFAR-10", [r["architecture"] for r in trained], [r["top1"] for r in trained], made))
    return found


def evaluators_for(known: Known) -> list[str]:
    """Texts of the evaluators that can be asked about these networks."""
    scores = [f"zero_cost:{score}" for score in SCORES]
    if known.name == "CIFAR-10":
        return [*scores, "prior", *SHORT]
    return [*scores, *(f"zero_cost:{score}" for score in ELSE), "prior"]


def scored(known: Known, out: Path, data: DataSplits | None) -> dict[str, list[tuple[float, float]]]:
    """Score and seconds of each network by each evaluator; what ``out`` holds already is not asked again."""
    log = out / f"scores-{known.name}.jsonl"
    before: dict[tuple[str, str], tuple[float, float]] = {}
    if log.exists():
        for line in log.read_text(encoding="utf-8").splitlines():
            entry = json.loads(line)
            before[entry["evaluator"], entry["network"]] = (entry["score"], entry["seconds"])
    found: dict[str, list[tuple[float, float]]] = {}
    for text in evaluators_for(known):
        evaluator: Evaluator | None = None
        found[text] = []
        for architecture in known.architectures:
            key = (text, repr(architecture))
            if key not in before:
                evaluator = evaluator or _warm(text, architecture, out, data)
                before[key] = _asked(evaluator, architecture)
                append_lines(log, [_line(text, key[1], before[key])])
            found[text].append(before[key])
        print(f"{known.name}: {text} of {len(known.architectures)} networks", flush=True)
    return found


def _warm(text: str, architecture: Architecture, out: Path, data: DataSplits | None) -> Evaluator:
    """The evaluator; one that is no training is asked once before it is timed."""
    learns = text.startswith("proxy")
    evaluator = load_evaluator(text, EvaluatorContext(data=data if learns else None, folder=out / "proxy"))
    if not learns:
        evaluator.evaluate([architecture])
    return evaluator


def _asked(evaluator: Evaluator, architecture: Architecture) -> tuple[float, float]:
    began = time.process_time()
    (answer,) = evaluator.evaluate([architecture])
    return answer.top1, time.process_time() - began


def _line(text: str, network: str, answer: tuple[float, float]) -> str:
    entry: Mapping[str, Any] = {"evaluator": text, "network": network, "score": answer[0], "seconds": answer[1]}
    return json.dumps(entry)
