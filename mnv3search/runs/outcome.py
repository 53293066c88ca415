"""What a run found."""

from __future__ import annotations

from dataclasses import dataclass

from mnv3search.report.summary import Judged, RunSummary
from mnv3search.runs.folder import RunFolder


@dataclass(frozen=True, slots=True)
class RunOutcome:
    """What a run found.

    Attributes:
        summary: everything that the report shows.
        reference: the space's reference network (NetAdapt: the seed) by the same evaluator and latency model.
        evaluated: distinct architectures given to the evaluator.
        seconds: of all sessions of the run.
    """

    summary: RunSummary
    reference: Judged
    evaluated: int
    seconds: float
    folder: RunFolder
