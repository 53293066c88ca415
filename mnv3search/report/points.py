"""The networks of the report's picture, each with what the reader sees when pointing at it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mnv3search.architecture import Architecture
from mnv3search.candidate import Candidate
from mnv3search.cost.counts import count
from mnv3search.layer_search import Step
from mnv3search.report.picture import Picture
from mnv3search.report.scatter_svg import Axes, Mark
from mnv3search.report.summary import Judged, RunSummary
from mnv3search.report.wording import ORIGIN_WORDS, accuracy_unit, latency_text, millions, top1_text


@dataclass(slots=True)
class Points:
    """The drawn networks: a mark each and, at the same index, what is shown of it; equal blocks are held once."""

    marks: list[Mark] = field(default_factory=list)
    records: list[list[object]] = field(default_factory=list)
    blocks: dict[tuple[object, ...], int] = field(default_factory=dict)
    ends: dict[tuple[str, str], int] = field(default_factory=dict)
    front: list[int] = field(default_factory=list)

    def add(
        self, mark: Mark, name: str, texts: Sequence[str], architecture: Architecture, address: str | None = None
    ) -> None:
        """Add a network; ``texts`` are top-1, latency, MAdds, parameters and origin as printed.

        ``address`` is what commands call it after the run's folder (``:12``), or a name that stands alone; None where
        no command can.
        """
        rows = [
            self.blocks.setdefault(row, len(self.blocks))
            for row in (
                (b.kernel_size, b.expanded_channels, b.out_channels, b.stride,
                 b.squeeze_excite.squeeze_channels if b.squeeze_excite else 0, b.activation)
                for b in architecture.blocks
            )
        ]  # fmt: skip
        end = self.ends.setdefault(_ends(architecture), len(self.ends))
        if mark.css == "front":
            self.front.append(len(self.marks))
        self.marks.append(mark)
        self.records.append([mark.x, mark.y, name, *texts, rows, end, address])

    def data(self) -> dict[str, object]:
        """What the report's script reads.

        ``points``: [x, y, name, top-1, latency, MAdds, parameters, origin, block indices, end index, address];
        ``blocks``: [kernel, expanded, out, stride, squeeze, activation]; ``ends``: [stem, head]; ``front``: indices.
        """
        return {"points": self.records, "blocks": list(self.blocks), "ends": list(self.ends), "front": self.front}


def _ends(architecture: Architecture) -> tuple[str, str]:
    stem, head, size = architecture.stem, architecture.head, architecture.resolution
    first = f"{size}×{size} input, stem {stem.kernel_size}×{stem.kernel_size}, {stem.out_channels}, {stem.activation}"
    layers = [str(c) for c in (head.feature_channels, head.hidden_channels, architecture.classes) if c is not None]
    return first, f"head {' → '.join(layers)}, {head.activation}"


def plotted_points(summary: RunSummary, shown: Picture) -> Points:
    """The networks of a picture, least important first: what comes later is drawn above and found first."""
    axes, points = Axes(shown.x, shown.y), Points()
    places = {id(c): place for place, c in enumerate(summary.front, start=1)}
    for css, members in (("dot", shown.candidates), ("front", shown.front)):
        for c in members:
            if axes.shows(c.latency_ms, c.top1):
                name = f"trial {c.number}" if c.origin == "block_search" else f"by {ORIGIN_WORDS[c.origin]}"
                address = f":front/{places[id(c)]}" if css == "front" else f":{c.number}"
                _add_plain(summary, points, axes, css, f"{name}, on the front" if css == "front" else name, c, address)
    for step in summary.steps:
        _add_plain(summary, points, axes, "step", f"NetAdapt, step {step.number}: {step.change}", step, None)
    for judged in shown.references:
        known = None if " " in judged.name else judged.name  # "(for 10 classes)" is no network's name
        _add_judged(summary, points, axes, "reference", judged.name, judged, known)
    for judged in shown.finalists:
        _add_judged(summary, points, axes, "finalist", "", judged, judged.address)
    if shown.best is not None:
        best = shown.best
        top1, latency = _texts(summary, best.top1, best.top1_std, best.latency_ms, best.latency_error_ms)
        _add_judged(summary, points, axes, "best", f"best: {top1}\n{latency}", best, "")  # the folder itself names it
    return points


def _add_plain(
    summary: RunSummary, points: Points, axes: Axes, css: str, name: str, network: Candidate | Step,
    address: str | None,
) -> None:  # fmt: skip
    architecture = network.architecture
    costs = network if isinstance(network, Candidate) else count(architecture)
    origin = network.origin if isinstance(network, Candidate) else "netadapt"
    error = summary.latency_errors_ms.get(architecture)
    texts = _texts(summary, network.top1, network.top1_std, network.latency_ms, error)
    texts += [millions(costs.madds), millions(costs.parameters, 2), ORIGIN_WORDS[origin]]
    points.add(Mark(*axes.at(network.latency_ms, network.top1), css), name, texts, architecture, address)


def _add_judged(
    summary: RunSummary, points: Points, axes: Axes, css: str, printed: str, judged: Judged, address: str | None
) -> None:
    texts = _texts(summary, judged.top1, judged.top1_std, judged.latency_ms, judged.latency_error_ms)
    origin = ORIGIN_WORDS.get(judged.origin, judged.origin)
    texts += [millions(judged.madds), millions(judged.parameters, 2), origin]
    points.add(axes.mark(judged, css, printed), judged.name, texts, judged.architecture, address)


def _texts(
    summary: RunSummary, top1: float | None, top1_std: float | None, latency_ms: float, error_ms: float | None
) -> list[str]:
    return [
        top1_text(top1, top1_std, estimated=summary.top1_estimated, unit=accuracy_unit(summary)),
        latency_text(latency_ms, error_ms, summary.device_kind, "ms"),
    ]
