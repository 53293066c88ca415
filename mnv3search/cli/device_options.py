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
    """Add ``--runtime``, ``--threads``, ``--precision`` and ``--allow-stale``; :func:`composed` takes their values."""
    return _RUNTIME(_THREADS(_PRECISION(_STALE(function))))


def composed(
    device: str, runtime: str | None, threads: int | None, precision: str | None, *, allow_stale: bool = False
) -> str:
    """The device's text with the options in it: ``host`` and 2 threads give ``host:onnxruntime,threads=2``.

    Raises:
        UnknownNameError: no such runtime or precision.
        DeviceError: an option for a device that is not measured, or one that contradicts its text.
    """
    options = {"--runtime": runtime, "--threads": threads, "--precision": precision, "--allow-stale": allow_stale}
    given = [name for name, value in options.items() if value is not None and value is not False]
    if not given:
        return device
    from mnv3search.errors import DeviceError
    from mnv3search.latency.device_spec import DeviceSpec

    if not DeviceSpec.names(device):
        raise DeviceError(f"{given[0]} is for measured devices; device {device!r:.80} is not one: add --device host")
    return str(DeviceSpec.parse(device).with_options(runtime, threads, precision, stale=allow_stale))


def composed_from(device: str, options: dict[str, Any]) -> str:
    """The same with the values of :func:`measured_options` among a command's ``options``, from which they are taken.

    Raises:
        UnknownNameError, DeviceError: as :func:`composed`.
    """
    values = {name: options.pop(name) for name in ("runtime", "threads", "precision", "allow_stale")}
    return composed(device, **values)
