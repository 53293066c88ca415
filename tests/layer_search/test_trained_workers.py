"""Processes that score proposals end with the one that began them, however that ends."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent / "pruning_workers.py"


@pytest.mark.slow
def test_workers_end_with_a_parent_that_was_killed_alone() -> None:
    path = os.pathsep.join(filter(None, (str(SCRIPT.parent.parent), os.environ.get("PYTHONPATH"))))
    process = subprocess.Popen(
        [sys.executable, str(SCRIPT)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path}, start_new_session=True,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        scored = {process.stdout.readline().strip() for _ in range(2)}
        assert scored == {"0", "1"}
        process.kill()
        process.communicate(timeout=60)  # the output ends when the last process that holds it has ended
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
