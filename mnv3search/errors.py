"""Every exception that mnv3search raises on purpose.

::

    Mnv3SearchError
    ├── ArchitectureError
    │   └── NotAListError
    ├── UnknownNameError
    ├── SpaceError
    ├── TargetError
    ├── InfeasibleError
    ├── DeviceError
    │   └── MeasurementError
    ├── EvaluatorError
    ├── WeightsError
    ├── DataError
    ├── TrainingError
    │   └── DivergedError
    ├── ExportError
    ├── RunError
    └── MissingDependencyError

Every message states the value, the rule that it breaks and what would be valid. The command line prints it as one line
and exits with code 2.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class Mnv3SearchError(Exception):
    """Base of all errors that a user can cause or mend."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _unpickled, (type(self), self.args, self.__dict__)  # subclasses take other arguments than the message


def _unpickled(kind: type[Mnv3SearchError], args: tuple[Any, ...], state: dict[str, Any]) -> Mnv3SearchError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class ArchitectureError(Mnv3SearchError, ValueError):
    """A block, stem, head or whole network that cannot exist."""


class NotAListError(ArchitectureError, TypeError):
    """One architecture where a list of them is taken."""


class UnknownNameError(Mnv3SearchError, LookupError):
    """A name that is not registered; the message lists the nearest ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        names = sorted(known)
        near = difflib.get_close_matches(str(name), names, n=3, cutoff=0.5)
        remedy = f"did you mean {' or '.join(near)}?" if near else f"known are {', '.join(names)}." if names else ""
        super().__init__(f"unknown {kind} {name!r}; {remedy} {hint}".strip("; "))
        self.kind = kind
        self.name = name


class SpaceError(Mnv3SearchError, ValueError):
    """A search space that breaks a rule."""


class TargetError(Mnv3SearchError, ValueError):
    """A latency target that is not a positive, finite figure with a unit."""


class InfeasibleError(Mnv3SearchError):
    """No network of the space, or none that NetAdapt can make of its seed, can meet the target.

    Attributes:
        target_latency_ms, fastest_ms, slowest_ms: milliseconds by the run's latency model.
        exact: whether the two bounds are exact or the extremes of a sample.

    ``needed_ms`` is the least target that can be met with the confidence asked for, ``feasible_confidence`` the highest
    confidence at which this one can; both where only the confidence, or also it, is in the way.
    """

    def __init__(
        self, target_latency_ms: float, fastest_ms: float, slowest_ms: float, *, exact: bool, narrowing: bool = False,
        needed_ms: float | None = None, feasible_confidence: float | None = None,
    ) -> None:  # fmt: skip
        bound = "" if exact else " that was found" if narrowing else " (of a sample)"
        what, smaller = ("narrowing of this network", "network") if narrowing else ("network of this space", "space")
        surely, remedy = "", f"set a target above {needed_ms or fastest_ms:.2f} ms or choose a smaller {smaller}"
        if feasible_confidence is not None:
            surely = " with the confidence asked for"
            remedy = f"--confidence {feasible_confidence:g} or less makes it feasible; or {remedy}"
        super().__init__(
            f"no {what} meets {target_latency_ms:g} ms{surely}: "
            f"the fastest{bound} takes {fastest_ms:.2f} ms, the slowest {slowest_ms:.2f} ms; {remedy}"
        )
        self.target_latency_ms = target_latency_ms
        self.fastest_ms = fastest_ms
        self.slowest_ms = slowest_ms
        self.exact = exact


class DeviceError(Mnv3SearchError):
    """A device profile that cannot be read or used."""


class MeasurementError(DeviceError):
    """A measurement on this machine that failed or cannot be trusted."""


class EvaluatorError(Mnv3SearchError):
    """An accuracy evaluator that cannot serve here or gave an unusable answer."""


class WeightsError(Mnv3SearchError, ValueError):
    """Weights that do not belong to the network."""


class DataError(Mnv3SearchError, ValueError):
    """Images or labels that cannot be trained or evaluated on."""


class TrainingError(Mnv3SearchError):
    """A recipe that breaks a rule, or a training that cannot go on."""


class DivergedError(TrainingError):
    """A training whose loss or weights are no longer finite: the network and its recipe are at fault, nothing else."""


class ExportError(Mnv3SearchError):
    """A network that cannot be exported, or whose export differs from it."""


class RunError(Mnv3SearchError):
    """A run folder that is missing, damaged or of another run."""


class MissingDependencyError(Mnv3SearchError, ImportError):
    """A package that this step needs is not installed; ``extra`` names the extra of mnv3search that brings it."""

    def __init__(self, package: str, needed_for: str, extra: str = "") -> None:
        install = f"'mnv3search[{extra}]'" if extra else package
        super().__init__(
            f"{needed_for} needs the package {package}, which is not installed; run: pip install {install}"
        )
