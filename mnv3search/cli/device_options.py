"""Options of a measured device, and how they go into the device's text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

Decorator = Callable[[Any], Any]

_RUNTIME: Decorator = click.option("--runtime", help="Of a measured device: onnxruntime, torch … (mnv3search devices).")
_THREADS: Decorator = click.option("--threads", type=int, help="Of one call on a measured device.  [default: 1]")
_PRECISION: Decorator = click.option("--precision", help="fp32 or int8, on a measured device.  [default: fp32]")
_STALE: Decorator = click.option(
    "--allow-stale", is_flag=True, help="After a runtime's upgrade, take the table of its former version, marked so."
)


def measured_options(function: Any) -> Any:
    """Add ``--runtime``, ``--threads`` and ``--precision``, which :func:`composed` joins to ``--device``."""
    return _RUNTIME(_THREADS(_PRECISION(function)))


def stale_option(function: Any) -> Any:
    """Add ``--allow-stale``, for :func:`~mnv3search.latency.devices.load_device`."""
    return _STALE(function)


def composed(device: str, runtime: str | None, threads: int | None, precision: str | None) -> str:
    """The device's text with the options in it: ``host`` and 2 threads give ``host:onnxruntime,threads=2``.

    Raises:
        UnknownNameError: no such runtime or precision.
        DeviceError: an option for a device that is not measured, or one that contradicts its text.
    """
    if runtime is None and threads is None and precision is None:
        return device
    from mnv3search.errors import DeviceError
    from mnv3search.latency.device_spec import DeviceSpec

    if not DeviceSpec.names(device):
        given = {"--runtime": runtime, "--threads": threads, "--precision": precision}
        option = next(name for name, value in given.items() if value is not None)
        raise DeviceError(f"{option} is for measured devices; device {device!r:.80} is not one: add --device host")
    return str(DeviceSpec.parse(device).with_options(runtime, threads, precision))
