"""Runtimes by name: those of this package, and those that installed packages register.

A package adds one through the entry point group ``mnv3search.runtimes``. Its value is called as ``factory(threads,
precision)``, ``precision`` being ``"fp32"`` or ``"int8"``, and must give a ``Runtime`` of just these, whose ``name`` is
that of the entry point; what it cannot do it refuses with an exception of ``mnv3search.errors``. A name is looked up,
never imported from a path.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, entry_points, version
from types import MappingProxyType
from typing import Any

from mnv3search.errors import DeviceError, Mnv3SearchError, UnknownNameError
from mnv3search.latency.runtimes.base import Precision, Runtime, check_alone, check_precision, check_threads

ENTRY_POINT_GROUP = "mnv3search.runtimes"
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


def runtime_names() -> list[str]:
    """Every name that :func:`load_runtime` takes; those of this package first."""
    return [*RUNTIMES, *sorted({point.name for point in entry_points(group=ENTRY_POINT_GROUP)} - set(RUNTIMES))]


def load_runtime(name: str, threads: int = 1, precision: Precision = "fp32") -> Runtime:
    """The runtime called ``name``, with so many threads a call, in this precision.

    In one process only one runtime works in several threads.

    Raises:
        UnknownNameError: no such runtime.
        DeviceError: ``threads`` is no whole number from 1 to the machine's cores, the runtime does not know
            ``precision``, or what an installed package registers is no such runtime.
        MeasurementError: another runtime works in several threads of this process already.
        MissingDependencyError: the runtime's package is not installed.
    """
    if name not in RUNTIMES and name not in runtime_names():
        raise UnknownNameError("runtime", name, runtime_names())
    check_threads(threads)
    check_precision(precision)
    runtime = _built_in(name, threads, precision) if name in RUNTIMES else _plugged_in(name, threads, precision)
    check_alone(name, threads)
    return runtime


def _built_in(name: str, threads: int, precision: Precision) -> Runtime:
    module, _, attribute = RUNTIMES[name].partition(":")
    factory: Callable[[int, Precision], Runtime] = getattr(import_module(module), attribute)
    return factory(threads, precision)


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
    """The package, with its version, that registers a runtime beside this program's own; None where none does."""
    if runtime in RUNTIMES:
        return None
    for point in entry_points(group=ENTRY_POINT_GROUP, name=runtime):
        return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value
    return None
