"""A seed's result must not depend on the number of cores, and trainings take the cores that are free."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_info

from mnv3search import threads
from mnv3search.threads import on_one_blas_thread, training_threads


def blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_blas_has_one_thread_within_and_its_own_again_after() -> None:
    np.linalg.eigh(np.eye(3))
    before = blas_threads()
    within: list[set[int]] = []

    @on_one_blas_thread
    def doubled(value: int, *, by: int) -> int:
        """Kept."""
        within.append(blas_threads())
        return value * by

    assert doubled(3, by=2) == 6
    assert within == [{1}]
    assert blas_threads() == before
    assert doubled.__doc__ == "Kept."


def test_torch_sleeps_while_it_waits_where_it_is_loaded_within() -> None:
    script = (
        "import os, sys\n"
        "from mnv3search.threads import training_threads\n"
        "with training_threads(2):\n"
        "    print(os.environ['OMP_WAIT_POLICY'], os.environ['KMP_BLOCKTIME'])\n"
        "    import torch\n"
        "    print(torch.get_num_threads())\n"
        "print('OMP_WAIT_POLICY' in os.environ, os.environ['OMP_NUM_THREADS'])\n"
    )
    plain = {key: value for key, value in os.environ.items() if not key.startswith(("OMP_", "KMP_"))}
    done = subprocess.run(
        [sys.executable, "-c", script], env=plain | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=True
    )
    assert done.stdout.split() == ["PASSIVE", "0", "2", "False", "1"]


def test_what_the_user_set_for_waiting_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_WAIT_POLICY", "ACTIVE")
    before = torch.get_num_threads()
    with training_threads(before + 1):
        assert os.environ["OMP_WAIT_POLICY"] == "ACTIVE"
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, 8), ({"cpu.max": "max 100000\n"}, 8), ({"cpu.max": "250000 100000\n"}, 2), ({"cpu.max": "1000 100000"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 8),
        ({"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3), ({"cpu.max": "nonsense"}, 8),
    ],
)  # fmt: skip
def test_cores_are_those_of_the_affinity_and_the_quota(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, files: Mapping[str, str], cores: int
) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    monkeypatch.setattr(threads, "CGROUP", tmp_path)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    assert threads.allowed_cores() == cores


@pytest.mark.parametrize(("load", "free"), [("0.1 0.1 0.1 1/90 7", 8), ("9 9 9 6/90 7", 3), ("9 9 9 40/90 7", 1)])
def test_threads_are_the_cores_that_nothing_else_runs_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, load: str, free: int
) -> None:
    (tmp_path / "loadavg").write_text(load)
    monkeypatch.setattr(threads, "LOAD", tmp_path / "loadavg")
    monkeypatch.setattr(threads, "SAMPLE_S", 0)
    monkeypatch.setattr(threads, "allowed_cores", lambda: 8)
    monkeypatch.setattr(os, "cpu_count", lambda: 8)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert threads.default_threads() == free
    monkeypatch.setenv("OMP_NUM_THREADS", "5,2")
    assert threads.default_threads() == 5
