"""Runtimes that time units and whole networks on this machine, one file each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from importlib import import_module
from types import MappingProxyType
from typing import cast

from mnv3search.errors import DeviceError, UnknownNameError
from mnv3search.latency.runtimes.base import CallSession, Runtime, Session, Subject

RUNTIMES: Mapping[str, str] = MappingProxyType(
    {
        "onnxruntime": "mnv3search.latency.runtimes.onnx_runtime:OnnxRuntime",
        "torch": "mnv3search.latency.runtimes.torch_eager:TorchEager",
    }
)
MAX_THREADS = 1_024


def load_runtime(name: str, threads: int = 1) -> Runtime:
    """The runtime called ``name`` (``onnxruntime`` or ``torch``) with so many threads a call.

    Raises:
        UnknownNameError: no such runtime.
        DeviceError: ``threads`` is not a whole number from 1 to 1,024.
        MissingDependencyError: the runtime's package is not installed.
    """
    if name not in RUNTIMES:
        raise UnknownNameError("runtime", name, RUNTIMES)
    if isinstance(threads, bool) or not isinstance(threads, int) or not 1 <= threads <= MAX_THREADS:
        raise DeviceError(f"threads is {threads!r}; it must be a whole number from 1 to {MAX_THREADS}")
    module, _, attribute = RUNTIMES[name].partition(":")
    return cast("Callable[[int], Runtime]", getattr(import_module(module), attribute))(threads)


__all__ = ["RUNTIMES", "CallSession", "Runtime", "Session", "Subject", "load_runtime"]
