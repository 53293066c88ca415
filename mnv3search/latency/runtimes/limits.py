"""What a runtime can be asked for: threads that the machine has, a known precision, one pool of threads a process."""

from __future__ import annotations

import os
from typing import Any, get_args

from mnv3search.errors import DeviceError, MeasurementError
from mnv3search.latency.runtimes.base import Precision

MAX_THREADS = 1_024

_with_threads: list[str] = []  # the runtime of this process that works in several threads, once there is one


def check_threads(threads: object) -> None:
    """Refuses what is no number of threads, or more than the cores of this machine that the process may use.

    Raises:
        DeviceError: so it is.
    """
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
        raise DeviceError(f"threads is {threads!r}; it must be a whole number from 1 to {MAX_THREADS}")
    cores = usable_cores()
    if threads > cores:
        raise DeviceError(
            f"threads is {threads}, but this machine has {cores} {'core' if cores == 1 else 'cores'} to give; "
            f"threads that wait for one another tell nothing: ask for at most {cores}"
        )


def usable_cores() -> int:
    """Logical cores that this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def check_precision(precision: object) -> None:
    """Refuses what is no precision.

    Raises:
        DeviceError: it is neither fp32 nor int8.
    """
    known: tuple[Any, ...] = get_args(Precision)
    if precision not in known:
        raise DeviceError(f"precision is {precision!r}; it must be {' or '.join(known)}")


def only_fp32(name: str, precision: Precision) -> None:
    """For a runtime without int8.

    Raises:
        DeviceError: another precision than fp32 is asked for.
    """
    if precision != "fp32":
        raise DeviceError(f"{name} works here in fp32 alone, not in {precision}; int8 is of onnxruntime and openvino")


def check_alone(name: str, threads: int) -> None:
    """Two pools of threads in one process take the cores from each other.

    Raises:
        MeasurementError: another runtime was loaded with several threads in this process.
    """
    if threads == 1:
        return
    if _with_threads and _with_threads[0] != name:
        raise MeasurementError(
            f"this process works in {_with_threads[0]} with several threads already, and {name} with {threads} would "
            "share the cores with it: measure each in a process of its own, or at one thread"
        )
    _with_threads[:] = [name]
