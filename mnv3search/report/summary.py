"""What a report shows, as values: the run's networks, the references beside them, and how sure each figure is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mnv3search.architecture import Architecture
from mnv3search.candidate import Candidate
from mnv3search.latency.model import LatencyKind
from mnv3search.layer_search import Step


@dataclass(frozen=True, slots=True)
class Judged:
    """A network with every figure that a table shows, each with its error.

    Attributes:
        name: such as ``best``, ``mobilenet_v3_large`` or ``finalist 2``.
        top1, top1_std: percent, by the run's evaluator; None where it states none.
        latency_ms, latency_error_ms: by the run's latency model; the error is one standard deviation or None.
        published_top1: percent, as its paper prints it; never compared with ``top1``; None for a searched network.
        origin: ``block_search``, ``netadapt`` or ``reference``.
        measured_ms, measured_error_ms: timed whole on this machine, interleaved with the reference; None where not.
        address: what commands call a network of the run, after its folder: ``:12`` or ``:finalist/1``.
    """

    name: str
    architecture: Architecture
    top1: float | None
    top1_std: float | None
    latency_ms: float
    latency_error_ms: float | None
    madds: int
    parameters: int
    origin: str
    published_top1: float | None = None
    measured_ms: float | None = None
    measured_error_ms: float | None = None
    address: str | None = None


@dataclass(frozen=True, slots=True)
class TargetVerdict:
    """Whether the winner is within the target, with the confidence that was asked for.

    Attributes:
        target_ms: milliseconds.
        confidence: one-sided, from 0.5 to below 1.
        met: whether its measured time, its spread added, is within the target; None where the device cannot be timed.
        margin_percent: how far its time (predicted where it was not timed) is below the target; negative above.
        timed: how many networks were timed as possible winners.
        repairs: how often the search went on because none of them, or only worse ones, were within the target.
    """

    target_ms: float
    confidence: float
    met: bool | None
    margin_percent: float
    timed: int = 0
    repairs: int = 0


@dataclass(frozen=True, slots=True)
class RunSummary:
    """Everything that the report of one run shows.

    Attributes:
        title: one line, such as ``mnv3_large for 50 ms on pixel1``.
        device, device_kind: name of the latency model and whether its figures are estimated, summed or measured.
        evaluator: name; ``top1_estimated`` says whether its answers are predictions.
        score: what its answers are called where they are no accuracies in percent; None where they are.
        best: the winner; ``finalists`` the others that came to the target.
        verdict: whether the winner is within the target; None where nobody asked.
        references: published networks by the same evaluator and latency model.
        candidates: every evaluated network of the block search; ``front`` its Pareto front.
        steps: NetAdapt's steps of the winning (or only) seed, with that seed's figures.
        notes: sentences for the reader: who won by how much, a target that never binds.
        manifest: the run folder's, shown as it is; its ``files``, where given, maps file names to what they hold.
        latency_errors_ms: one standard deviation in milliseconds for candidates, seed and steps, where known.
        no_ranking: why the candidates' accuracies put them in no order; None where they do.
        trained: the file of the winner as the evaluator trained it; None where it trains nothing, or keeps nothing.
    """

    title: str
    space: str | None
    device: str
    device_kind: LatencyKind
    evaluator: str
    top1_estimated: bool
    target_latency_ms: float
    best: Judged
    references: Sequence[Judged] = ()
    finalists: Sequence[Judged] = ()
    candidates: Sequence[Candidate] = ()
    front: Sequence[Candidate] = ()
    seed: Candidate | None = None
    steps: Sequence[Step] = ()
    notes: Sequence[str] = ()
    manifest: Mapping[str, object] = field(default_factory=dict)
    latency_errors_ms: Mapping[Architecture, float] = field(default_factory=dict)
    verdict: TargetVerdict | None = None
    score: str | None = None
    trained: str | None = None
    no_ranking: str | None = None
