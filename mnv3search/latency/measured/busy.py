"""Whether the other machine that is timed had work of its own, which its times would show."""

from __future__ import annotations

from mnv3search.latency.runtimes.base import Runtime, machine_of

BUSY = 0.5  # load average for each of its cores


def busy_sentence(device: object) -> str | None:
    """What to say of a device whose machine's load average is above half of its cores; None where nothing is known."""
    runtime = getattr(device, "runtime", None)
    load = getattr(runtime, "load_average", None)
    if not isinstance(runtime, Runtime) or load is None:
        return None
    cores = machine_of(runtime).cores
    if load <= BUSY * cores:
        return None
    return (
        f"the board is busy: its load average was {load:.1f} on {cores} cores, so its times will be long and uneven; "
        "stop what else runs there"
    )
