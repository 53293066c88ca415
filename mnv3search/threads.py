"""How many threads compute: one for the searches' linear algebra, as many as are free for trainings.

The searches solve many small systems: splitting them over threads costs more than it saves, and rounds differently with
the number of cores, so that one seed would give different results on different machines. Torch's OpenMP threads wait
for one another by spinning, which takes cores from what they wait for wherever a machine has other work.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import lru_cache, wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

CGROUP, LOAD = Path("/sys/fs/cgroup"), Path("/proc/loadavg")
SAMPLES, SAMPLE_S = 5, 0.02  # of what runs: one says little
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")


@lru_cache(maxsize=1)
def _controller() -> ThreadpoolController:
    import numpy  # noqa: F401  # its BLAS must be loaded to be found
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


def on_one_blas_thread(function: Callable[Parameters, Result]) -> Callable[Parameters, Result]:
    """``function`` with numpy's BLAS limited to one thread while it runs."""

    @wraps(function)
    def limited(*args: Parameters.args, **kwargs: Parameters.kwargs) -> Result:
        with _controller().limit(limits=1, user_api="blas"):
            return function(*args, **kwargs)

    return limited


@contextmanager
def training_threads(threads: int) -> Iterator[None]:
    """Within it torch computes on ``threads`` threads, which sleep while they wait if torch is imported within.

    OpenMP reads its environment once, when torch is imported. What the user set there stays.
    """
    before, torch = dict(os.environ), sys.modules.get("torch")
    threads_before = torch.get_num_threads() if torch is not None else 0
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("KMP_BLOCKTIME", "0")  # the same for the OpenMP of LLVM and Intel
    os.environ["OMP_NUM_THREADS"] = str(threads)
    if torch is not None:
        torch.set_num_threads(threads)
    try:
        yield
    finally:
        if torch is not None:
            torch.set_num_threads(threads_before)
        os.environ.clear()
        os.environ.update(before)


def default_threads() -> int:
    """Threads for a training: ``OMP_NUM_THREADS`` where it is set, else the allowed cores as far as they are free."""
    set_by_user = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    if set_by_user.isascii() and set_by_user.isdecimal() and int(set_by_user) > 0:
        return int(set_by_user)
    return max(1, min(allowed_cores(), (os.cpu_count() or 1) - _running()))


def allowed_cores() -> int:
    """Cores that this process may use, by its affinity and its cgroup's quota."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota, _, period = _content(CGROUP / "cpu.max").partition(" ")  # "200000 100000" microseconds, or "max 100000"
    if not quota:
        quota, period = _content(CGROUP / "cpu/cpu.cfs_quota_us"), _content(CGROUP / "cpu/cpu.cfs_period_us")
    if quota.isdecimal() and period.isdecimal() and int(period) > 0:
        cores = min(cores, round(int(quota) / int(period)))
    return max(1, cores)


def _running() -> int:
    """How many other threads of this machine are running or wait for a core."""
    seen: list[int] = []
    for _ in range(SAMPLES):
        running = _content(LOAD).split(" ")[3:4]  # of "0.51 0.42 0.30 3/512 9021" the 3, this thread included
        if not running:
            with suppress(AttributeError, OSError):
                return round(os.getloadavg()[0])
            return 0
        seen.append(int(running[0].partition("/")[0]) - 1)
        time.sleep(SAMPLE_S)
    return sorted(seen)[(len(seen) - 1) // 2]  # the lower median


def _content(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        return ""
