"""Whether the machine that is timed had work of its own, which its times would show.

Other programs show before a measurement in the load average of the machine; while it goes on, in calls that waited for
a core (their CPU time is less than the wall's) and in a pace that changes from one moment to the next. The last is all
that can be seen of a neighbour on the same hardware, and of a clock that heat slows.
"""

from __future__ import annotations

from collections.abc import Sequence

from mnv3search.latency.fingerprint import load_average
from mnv3search.latency.runtimes.base import Runtime, machine_of

BUSY = 0.5  # load average for each of its cores
MAX_WAITED = 0.05  # share of the wall's time in which timed calls waited for a core
MAX_PACE_ERROR = 0.02  # of the machine's pace, one standard deviation, as a share
_REMEDY = "stop what else runs there, or measure again when it is idle"


def load_of(runtime: object) -> float | None:
    """The load average of the machine on which ``runtime`` times, here or elsewhere; None where it is unknown."""
    found: float | None = runtime.load_average if hasattr(runtime, "load_average") else load_average()
    return found


def busy_sentence(device: object) -> str | None:
    """What to say before a measurement of a device whose machine's load average is above half of its cores, or None."""
    runtime = getattr(device, "runtime", None)
    if not isinstance(runtime, Runtime):
        return None
    load, cores = load_of(runtime), machine_of(runtime).cores
    if load is None or load <= BUSY * cores:
        return None
    return (
        f"the machine to be timed is busy: its load average was {load:.1f} on {cores} cores, so its times will be long "
        f"and uneven; {_REMEDY}"
    )


def disturbed_sentence(timed: Sequence[object]) -> str | None:
    """What to say after whole networks were timed together where other programs disturbed that, or None.

    Args:
        timed: what a device gave; one that says nothing of its calls or pace is passed over.
    """
    waited = max((getattr(one, "waited", 0.0) for one in timed), default=0.0)
    pace_error = max((getattr(one, "pace_error", 0.0) for one in timed), default=0.0)
    signs = []
    if waited > MAX_WAITED:
        signs.append(f"timed calls waited {100 * waited:.0f} % of the time for a core")
    if pace_error > MAX_PACE_ERROR:
        signs.append(f"its pace is known within ±{100 * pace_error:.1f} % alone, which the stated deviations hold")
    if not signs:
        return None
    return f"the machine was busy while it was timed: {' and '.join(signs)}; {_REMEDY}"
