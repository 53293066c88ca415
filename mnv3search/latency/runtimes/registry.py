"""Runtimes by name: those of this package, and those that installed packages register.

A package adds one through the entry point group ``mnv3search.runtimes``. Its value is called as ``factory(threads,
precision)``, ``precision`` being ``"fp32"`` or ``"int8"``, and must give a ``Runtime`` of just these, whose ``name`` is
that of the entry point; what it cannot do it refuses with an exception of ``mnv3search.errors``. A name is looked up,
never imported from a path.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, entry_points, version
from types import MappingProxyType
from typing import Any, get_args

from mnv3search.errors import DeviceError, MeasurementError, Mnv3SearchError, UnknownNameError
from mnv3search.latency.remote.agent import usable_cores
from mnv3search.latency.runtimes.base import Precision, Runtime

ENTRY_POINT_GROUP = "mnv3search.runtimes"
MAX_THREADS = 1_024
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
PACKAGES = {"litert": "ai-edge-litert"}  # where a runtime's package has another name
RUNTIMES: Mapping[str, str] = MappingProxyType(
    {
        "onnxruntime": "mnv3search.latency.runtimes.onnx_runtime:OnnxRuntime",
        "torch": "mnv3search.latency.runtimes.torch_eager:TorchEager",
        "openvino": "mnv3search.latency.runtimes.openvino_cpu:OpenVinoCpu",
        "mnn": "mnv3search.latency.runtimes.mnn_cpu:MnnCpu",
        "litert": "mnv3search.latency.runtimes.litert_cpu:LiteRtCpu",
    }
)
"""Those of this package: name and class."""

_with_threads: list[str] = []  # the runtime of this process that works in several threads, once there is one


def runtime_names() -> list[str]:
    """Every name that :func:`load_runtime` takes; those of this package first."""
    return [*RUNTIMES, *sorted({point.name for point in entry_points(group=ENTRY_POINT_GROUP)} - set(RUNTIMES))]


def is_runtime(name: str) -> bool:
    """Whether a runtime has this name."""
    return name in RUNTIMES or name in runtime_names()  # what is installed is looked through last, as that takes long


def check_runtime(name: str) -> None:
    """Raises UnknownNameError where no runtime has this name."""
    if not is_runtime(name):
        raise UnknownNameError("runtime", name, runtime_names())


def check_options(threads: object, precision: object) -> None:
    """Raises DeviceError where these are no number of threads and no precision, whatever the machine."""
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
        raise DeviceError(f"threads is {threads!r:.80}; it must be a whole number from 1 to {MAX_THREADS}")
    if precision not in PRECISIONS:
        raise DeviceError(f"precision is {precision!r}; it must be {' or '.join(PRECISIONS)}")


def load_runtime(name: str, threads: int = 1, precision: Precision = "fp32") -> Runtime:
    """The runtime called ``name``, with so many threads a call, in this precision.

    Raises:
        UnknownNameError: no such runtime.
        DeviceError: ``threads`` is no whole number from 1 to the machine's cores, the runtime does not know
            ``precision``, or what an installed package registers is no such runtime.
        MeasurementError: another runtime works in several threads of this process already.
        MissingDependencyError: the runtime's package is not installed.
    """
    check_runtime(name)
    check_options(threads, precision)
    if threads > (cores := usable_cores()):
        raise DeviceError(
            f"threads is {threads}, but this machine has {cores} {'core' if cores == 1 else 'cores'} to give; "
            f"threads that wait for one another measure nothing: ask for at most {cores}"
        )
    if name not in RUNTIMES:
        runtime = _plugged_in(name, threads, precision)
    else:
        module, _, attribute = RUNTIMES[name].partition(":")
        made: Any = getattr(import_module(module), attribute)
        runtime = made(threads, precision)
    if threads > 1:
        if _with_threads not in ([], [name]):  # two pools of threads would take the cores from each other
            raise MeasurementError(
                f"this process works in {_with_threads[0]} with several threads already, and {name} with {threads} "
                "would share the cores with it: measure each in a process of its own, or at one thread"
            )
        _with_threads[:] = [name]
    return runtime


def _plugged_in(name: str, threads: int, precision: Precision) -> Runtime:
    point = next(iter(entry_points(group=ENTRY_POINT_GROUP, name=name)))
    try:
        runtime: Any = point.load()(threads, precision)
    except Mnv3SearchError:
        raise
    except Exception as error:
        raise DeviceError(
            f"runtime {name!r} of an installed package cannot be made ({type(error).__name__}: {error}); "
            "mend or reinstall that package"
        ) from error
    if not isinstance(runtime, Runtime):
        raise DeviceError(
            f"runtime {name!r} of an installed package is none; it needs name, version, threads, precision and "
            "prepare(subject)"
        )
    stated = (runtime.name, runtime.threads, runtime.precision)
    if stated != (name, threads, precision):
        raise DeviceError(
            f"runtime {name!r} of an installed package was asked for {(name, threads, precision)} and states {stated}; "
            "its factory must give a runtime of the name, threads and precision that it is called with"
        )
    return runtime


def installed_version(runtime: str) -> str | None:
    """The installed version of a runtime's package, without importing it; None where it is not installed."""
    try:
        return version(PACKAGES.get(runtime, runtime))
    except (PackageNotFoundError, ValueError):
        return None


def plug_in(runtime: str) -> str | None:
    """The package, with its version, that registers a runtime; None for this program's own."""
    if runtime in RUNTIMES:
        return None
    for point in entry_points(group=ENTRY_POINT_GROUP, name=runtime):
        return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value
    return None
