"""What a report shows, as values, and how its figures and sentences are written: each with its mark and its error."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, NamedTuple

from mnv3search.architecture import Architecture
from mnv3search.candidate import Candidate, networks_frame
from mnv3search.latency.confidence import LEAST_CONFIDENCE, probability_within
from mnv3search.latency.model import LatencyKind
from mnv3search.layer_search import Step

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, slots=True)
class ScoredNetwork:
    """A network with every figure that a table shows; errors are one standard deviation, None where unknown."""

    name: str  # best, mobilenet_v3_large, finalist 2
    architecture: Architecture
    top1: float | None  # percent, by the run's evaluator; None where it states none
    top1_std: float | None
    latency_ms: float  # by the run's latency model
    latency_error_ms: float | None
    madds: int
    parameters: int
    origin: str  # block_search, netadapt or reference
    published_top1: float | None = None  # percent, as its paper prints it; never compared with top1
    measured_ms: float | None = None  # timed whole on this machine, interleaved with the reference
    measured_error_ms: float | None = None
    address: str | None = None  # what commands call a network of the run, after its folder: :12 or :finalist/1


def scored_frame(networks: Iterable[ScoredNetwork]) -> DataFrame:
    """A row a network with all its figures, ``blocks`` and itself."""
    names = (f.name for f in fields(ScoredNetwork) if f.name not in ("architecture", "address"))
    return networks_frame(list(networks), names)


@dataclass(frozen=True, slots=True)
class TargetVerdict:
    """Whether the winner is within the target, with the confidence that was asked for."""

    target_ms: float
    confidence: float  # one-sided, from 0.5 to below 1
    met: bool | None  # its measured time, its spread added, is within the target; None where it cannot be timed
    margin_percent: float  # how far its time (predicted where it was not timed) is below the target
    timed: int = 0  # networks timed as possible winners
    repairs: int = 0  # times the search went on because none of them, or only worse ones, were within the target


@dataclass(frozen=True, slots=True)
class RunSummary:
    """Everything that the report of one run shows."""

    title: str  # mnv3_large for 50 ms on pixel1
    space: str | None  # None where a trained network was pruned
    device: str
    device_kind: LatencyKind
    evaluator: str
    top1_estimated: bool  # whether the evaluator's answers are predictions
    target_latency_ms: float
    best: ScoredNetwork  # the winner
    references: Sequence[ScoredNetwork] = ()  # published networks by the same evaluator and latency model
    finalists: Sequence[ScoredNetwork] = ()  # the others that came to the target
    candidates: Sequence[Candidate] = ()  # every evaluated network of the block search
    front: Sequence[Candidate] = ()  # its Pareto front
    seed: Candidate | None = None  # of the winner
    steps: Sequence[Step] = ()  # NetAdapt's, from that seed
    notes: Sequence[str] = ()  # sentences for the reader: who won by how much, a target that never binds
    # the run folder's, shown as it is; its files, where given, map file names to what they hold
    manifest: Mapping[str, object] = field(default_factory=dict)
    # one standard deviation for candidates, seed and steps, where known
    latency_errors_ms: Mapping[Architecture, float] = field(default_factory=dict)
    verdict: TargetVerdict | None = None  # None where nobody asked
    score: str | None = None  # the name of the evaluator's answers where they are no accuracies in percent
    trained: str | None = None  # the file of the winner as the evaluator trained it, where it keeps one
    no_ranking: str | None = None  # why the candidates' accuracies put them in no order

    @property
    def everyone(self) -> list[ScoredNetwork]:
        """The best, the other finalists, the references: the rows of a table."""
        return [self.best, *self.finalists, *self.references]

    @property
    def timed(self) -> bool:
        """Whether any of them was measured whole."""
        return any(n.measured_ms is not None for n in self.everyone)

    def top1_of(self, network: Candidate | Step | ScoredNetwork, *, unit: bool = True) -> str:
        """A network's top-1 (or score) with its error, and ``pred.`` where it is a prediction."""
        percent_sign = "%" if unit and not self.score else ""
        return top1_text(network.top1, network.top1_std, estimated=self.top1_estimated, unit=percent_sign)

    def latency_of(self, network: Candidate | Step | ScoredNetwork, *, unit: bool = True) -> str:
        """A network's latency with its error and the mark of its kind."""
        if isinstance(network, ScoredNetwork):
            error = network.latency_error_ms
        else:
            error = self.latency_errors_ms.get(network.architecture)
        return latency_text(network.latency_ms, error, self.device_kind, "ms" if unit else "")


NO_FIGURE = "–"
LATENCY_MARKS: dict[LatencyKind, str] = {"estimated": "est.", "table": "table", "measured": "meas."}
LATENCY_WORDS: dict[LatencyKind, str] = {
    "estimated": "estimated",
    "table": "sum of measured blocks",
    "measured": "measured whole",
}
ORIGIN_WORDS = {"block_search": "block search", "netadapt": "NetAdapt", "reference": "published"}


class Sentence(NamedTuple):
    """One statement of the headline: what it is about, and the statement."""

    label: str
    text: str


def with_error(value: float | None, error: float | None, digits: int = 1, mark: str = "", unit: str = "") -> str:
    """Such as ``75.6 ±0.5 % pred.``; a marked figure of unknown error reads ``75.6 ±? pred.``; None reads ``–``."""
    if value is None or not math.isfinite(value):
        return NO_FIGURE
    if error is not None and math.isfinite(error):
        while error > 0 and round(error, digits) == 0 and digits < 4:
            digits += 1
        text = f"{value:.{digits}f} ±{error:.{digits}f}"
    else:
        text = f"{value:.{digits}f} ±?" if mark else f"{value:.{digits}f}"
    return " ".join(part for part in (text, unit, mark) if part)


def top1_text(top1: float | None, top1_std: float | None, *, estimated: bool, unit: str = "") -> str:
    """Top-1 in percent with one standard deviation; ``pred.`` where it is a prediction."""
    return with_error(top1, top1_std, 1, "pred." if estimated else "", unit)


def latency_text(latency_ms: float | None, error_ms: float | None, kind: LatencyKind, unit: str = "") -> str:
    """Milliseconds with one standard deviation and the mark of their kind: ``50.0 ±1.9 est.``."""
    digits = 1 if latency_ms is None or latency_ms >= 10 else 2 if latency_ms >= 1 else 3
    return with_error(latency_ms, error_ms, digits, LATENCY_MARKS[kind], unit)


def published_text(top1: float | None) -> str:
    """A paper's top-1 in percent, as printed; ``–`` where there is none."""
    return NO_FIGURE if top1 is None else f"{top1:.1f}"


def millions(value: int, digits: int = 1) -> str:
    """A count in millions, without its unit."""
    return f"{value / 1e6:,.{digits}f}"


def signed(value: float, digits: int = 2) -> str:
    """With its sign, a true minus."""
    text = f"{abs(value):.{digits}f}"
    return ("−" if value < 0 and float(text) else "+") + text


def small_ms(value: float) -> str:
    """Milliseconds, unsigned, with two figures that say something where they are few: ``0.53``, ``0.0035``."""
    size = abs(value)
    digits = 2 if size == 0 else min(6, max(2, 1 - math.floor(math.log10(size))))
    return f"{size:.{digits}f}"


def change_ms(value: float) -> str:
    """The same of a change, with its sign."""
    return ("−" if value < 0 else "+") + small_ms(value)


def percent(share: float) -> str:
    """A share that is no certainty: 0.9 reads ``90 %``, and nothing reads ``100 %``."""
    return f"{math.floor(1000 * share + 1e-9) / 10:g} %"


def x_label(summary: RunSummary) -> str:
    """The latency axis with unit, kind and error."""
    best = summary.best
    error = ""
    if best.latency_error_ms is not None and best.latency_ms > 0:
        error = f" ±{100 * best.latency_error_ms / best.latency_ms:.1f} % at the best"
    return f"Latency on {summary.device}, ms ({LATENCY_WORDS[summary.device_kind]}{error})"


def y_label(summary: RunSummary) -> str:
    """The accuracy axis with its unit: ``Predicted ImageNet top-1, %``, ``Top-1 by NAME, %`` or a score."""
    from mnv3search.accuracy.prior import PUBLISHED, RECIPES, recipe_of

    if summary.score:
        return f"Score by {summary.evaluator} ({summary.score})"
    if not summary.top1_estimated:
        return f"Top-1 by {summary.evaluator}, %"
    recipe = PUBLISHED if summary.evaluator == "ImagenetPrior" else recipe_of(summary.evaluator)
    return f"Predicted {RECIPES[recipe]}, %" if recipe else f"Top-1 predicted by {summary.evaluator}, %"


_MEANS = "; all by the same evaluator and latency model"


def headline(summary: RunSummary) -> tuple[Sentence, ...]:
    """What was asked and found, whether it meets the target, how it compares with the baselines, how surely."""
    compared = baselines(summary)
    reference = max(compared, key=lambda n: -math.inf if n.top1 is None else n.top1, default=None)
    sentences = {
        "No ranking": summary.no_ranking,
        "Asked": _asked(summary),
        "Found": _found(summary),
        "Target": _timed(summary, summary.verdict) if summary.verdict and summary.verdict.met is not None else None,
        "Against": "; ".join(_against(summary, n) for n in compared) + _MEANS if compared else None,
        "How sure": " ".join([*_accuracy_caveat(summary, reference), *_latency_caveat(summary)]),
    }
    return tuple(Sentence(label, text) for label, text in sentences.items() if text)


def baselines(summary: RunSummary) -> list[ScoredNetwork]:
    """What the best is compared with: the most accurate published network within the target, and the reference."""
    within = [n for n in summary.references if n.top1 is not None and _taken_ms(n) <= summary.target_latency_ms]
    strongest = max(within, key=lambda n: (n.top1 or 0.0, -n.latency_ms), default=None)
    reference = next(iter(summary.references), None)
    return list(dict.fromkeys(n for n in (strongest, reference) if n is not None))


def _taken_ms(network: ScoredNetwork) -> float:
    return network.latency_ms if network.measured_ms is None else network.measured_ms


def _measured(network: ScoredNetwork) -> str:
    return with_error(network.measured_ms, network.measured_error_ms, 2, unit="ms")


def _asked(summary: RunSummary) -> str:
    budget = f"at most {summary.target_latency_ms:.6g} ms on {summary.device}"
    if summary.verdict is not None and summary.verdict.confidence > LEAST_CONFIDENCE:
        budget += f", with {percent(summary.verdict.confidence)} confidence"
    if summary.space is None:
        return f"a network narrowed until it takes {budget}, losing as little accuracy as possible"
    most = "network of the highest score" if summary.score else "most accurate network"
    return f"the {most} of the space {summary.space} that takes {budget}"


def _timed(summary: RunSummary, verdict: TargetVerdict) -> str:
    """Pass or fail of a winner that was timed whole, with the spread of its time."""
    best, target = summary.best, f"{verdict.target_ms:.6g} ms"
    took = f"timed whole the best takes {_measured(best)}"
    where = f"{abs(verdict.margin_percent):.1f} % {'below' if verdict.margin_percent >= 0 else 'above'} {target}"
    if verdict.met:
        return f"{'PASS' if summary.no_ranking is None else 'latency alone: within it'}: {took}, {where}"
    if verdict.margin_percent >= 0:
        where += f", but its spread does not leave {percent(verdict.confidence)} confidence"
    return f"FAIL: {took}, {where}; it is the closest of {verdict.timed} timed"


def _found(summary: RunSummary) -> str:
    best = summary.best
    # what was timed is the result; the model's figure is in the table
    latency = summary.latency_of(best) if best.measured_ms is None else f"{_measured(best)} timed whole"
    what = "score" if summary.score else "top-1"
    counts = f"{millions(best.madds)} M MAdds and {millions(best.parameters, 2)} M parameters"
    origin = ORIGIN_WORDS.get(best.origin, best.origin)
    return f"{what} {summary.top1_of(best)} at {latency}, with {counts}; by {origin}"


def _against(summary: RunSummary, reference: ScoredNetwork) -> str:
    best, parts = summary.best, []
    if best.top1 is not None and reference.top1 is not None:
        gain = best.top1 - reference.top1
        points = "" if summary.score else " points"
        where = f"{abs(gain):.1f}{points} {'above' if gain > 0 else 'below'}" if round(gain, 1) else "level with"
        parts.append(f"{where} {reference.name}")
    timed = best.measured_ms is not None and reference.measured_ms is not None
    faster = _taken_ms(reference) - _taken_ms(best) if timed else reference.latency_ms - best.latency_ms
    digits = 1 if best.latency_ms >= 10 else 2
    parts.append(f"{abs(faster):.{digits}f} ms {'faster' if faster >= 0 else 'slower'}")
    latency = f"{_measured(reference)} timed whole" if timed else summary.latency_of(reference)
    over = ", over the target" if _taken_ms(reference) > summary.target_latency_ms else ""
    return f"{' and '.join(parts)} ({reference.name}: {summary.top1_of(reference)} at {latency}{over})"


def _accuracy_caveat(summary: RunSummary, reference: ScoredNetwork | None) -> list[str]:
    best = summary.best
    if summary.no_ranking is not None:
        return []
    if summary.score:
        return [f"A score ({summary.score}) is no accuracy: it orders networks, roughly; train the best to know."]
    if reference is None or best.top1 is None or reference.top1 is None:
        return []
    if best.top1_std is None or reference.top1_std is None:
        return ["The evaluator states no error, so the difference in accuracy has none either."]
    gain, deviation = abs(best.top1 - reference.top1), math.hypot(best.top1_std, reference.top1_std)
    times = gain / deviation if deviation > 0 else math.inf
    selection: list[
        str
    ] = []  # the best of many predictions is biased upwards, which no single prediction's error contains
    if summary.top1_estimated and len(summary.candidates) > 1:
        picked = f"picked as the highest of {len(summary.candidates):,} predictions"
        selection = [f"The best was {picked}, so it is more likely over- than underestimated."]
    if times < 1:
        share, verdict = "less than", "the two cannot be told apart before both are trained"
    elif times < 2:
        share, verdict = f"{times:.1f} times", "likely, not certain, before both are trained"
    else:
        share, verdict = f"{times:.1f} times", "clear, as far as predictions go"
    return [
        f"The difference of {gain:.1f} points to {reference.name} is {share} its standard deviation ({deviation:.1f}, "
        f"if the two errors are independent): {verdict}.",
        *selection,
    ]


def _latency_caveat(summary: RunSummary) -> list[str]:
    best = summary.best
    if summary.device_kind == "measured" or best.measured_ms is not None or best.latency_error_ms is None:
        return []  # a sentence of its own holds the measured time against the target
    slack = summary.target_latency_ms - best.latency_ms
    if slack > 2 * best.latency_error_ms:
        return []
    above = 1 - probability_within(best.latency_ms, best.latency_error_ms, summary.target_latency_ms)
    return [
        f"The latency is {'an estimate' if summary.device_kind == 'estimated' else 'a sum of measured blocks'} with a "
        f"standard deviation of {best.latency_error_ms:.2g} ms: on the device itself it lies above the target with a "
        f"probability of {100 * above:.0f} %."
    ]
