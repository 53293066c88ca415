"""Two processes under torchrun: one network, evaluated on all images."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file
from training_fakes import PREPROCESSING, same_weights, splits, weights_of

from mnv3search.training.evaluation import evaluate_network
from mnv3search.training.trained import load_trained

TESTS = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_two_processes_end_with_one_network_that_is_evaluated_on_all_images(tmp_path: Path) -> None:
    paths = os.pathsep.join([str(TESTS), str(TESTS.parent)])
    command = [
        sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2",
        str(TESTS / "training_processes.py"), str(tmp_path),
    ]  # fmt: skip
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": paths, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [(tmp_path / f"rank_{rank}.txt").read_text() for rank in (0, 1)] == ["2", "2"]
    weights = [load_file(tmp_path / f"rank_{rank}.safetensors") for rank in (0, 1)]
    assert same_weights(*weights)
    kept = load_trained(tmp_path)
    assert same_weights(weights_of(kept.network), weights[0])
    figures = [json.loads((tmp_path / f"rank_{rank}.json").read_text()) for rank in (0, 1)]
    assert [f["top1"] for f in figures[0]] == [f["top1"] for f in figures[1]]
    assert figures[0][0]["train_loss"] != figures[1][0]["train_loss"]  # each has its own share of every batch
    alone = evaluate_network(kept.network, splits()[1], PREPROCESSING)
    best = max(figures[0], key=lambda record: (record["top1"], -record["loss"]))
    assert alone.images == 24
    assert alone.top1 == pytest.approx(best["top1"])
    assert alone.loss == pytest.approx(best["loss"], rel=1e-5)
