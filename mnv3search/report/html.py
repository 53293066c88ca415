"""``report.html``: one self-contained, interactive file that asks nothing of any network."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from html import escape
from importlib.resources import files

import numpy as np

from mnv3search.architecture import Architecture
from mnv3search.candidate import Candidate
from mnv3search.cost import count
from mnv3search.layer_search import Step
from mnv3search.report.labels import LEADER_FROM, Box, Label, along, nearest_point, place_labels
from mnv3search.report.pareto import FEW, Picture, picture, ticks
from mnv3search.report.summary import (
    LATENCY_WORDS,
    NO_FIGURE,
    ORIGIN_WORDS,
    Judged,
    RunSummary,
    accuracy_unit,
    change_ms,
    headline,
    latency_text,
    millions,
    published_text,
    signed,
    small_ms,
    top1_text,
    with_error,
    x_label,
    y_label,
)
from mnv3search.report.tables import final_caption


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


WIDTH, HEIGHT = 960, 560
LEFT, TOP, RIGHT, BOTTOM = 62, 14, 946, 508
GLYPH, BOLD_GLYPH, LINE = 7.2, 8.2, 15.0
STAR = "M0-9 2.2-2.8 8.7-2.6 3.6 1.5 5.3 7.4 0 4 -5.3 7.4 -3.6 1.5 -8.7-2.6 -2.2-2.8Z"
DIAMOND = "M0-6 6 0 0 6 -6 0Z"


@dataclass(frozen=True, slots=True)
class Mark:
    """One network on the picture: (x, y) in SVG units, ``css`` its class, ``named`` its printed name or empty."""

    x: float
    y: float
    css: str
    named: str = ""
    x_error: float = 0.0
    y_error: float = 0.0


@dataclass(frozen=True, slots=True)
class Axes:
    """From milliseconds and percent to SVG units."""

    x: tuple[float, float]
    y: tuple[float, float]

    def at(self, latency_ms: float, top1: float) -> tuple[float, float]:
        """The place of a network, rounded to a tenth of a unit."""
        across = (latency_ms - self.x[0]) / (self.x[1] - self.x[0])
        up = (top1 - self.y[0]) / (self.y[1] - self.y[0])
        return round(LEFT + across * (RIGHT - LEFT), 1), round(BOTTOM - up * (BOTTOM - TOP), 1)

    def shows(self, latency_ms: float, top1: float) -> bool:
        """Whether a network lies within the axes."""
        return self.x[0] <= latency_ms <= self.x[1] and self.y[0] <= top1 <= self.y[1]

    def mark(self, judged: Judged, css: str, named: str = "") -> Mark:
        """A judged network's mark with its errors."""
        top1 = judged.top1 or 0.0
        x, y = self.at(judged.latency_ms, top1)
        right, _ = self.at(judged.latency_ms + (judged.latency_error_ms or 0.0), top1)
        _, above = self.at(judged.latency_ms, top1 + (judged.top1_std or 0.0))
        return Mark(x, y, css, named, round(right - x, 1), round(y - above, 1))


def scatter_svg(shown: Picture, marks: Sequence[Mark], x_label: str, y_label: str) -> str:
    """The whole picture. A mark's index in ``marks`` is its ``data-i``."""
    axes = Axes(shown.x, shown.y)
    front = [axes.at(c.latency_ms, c.top1) for c in shown.front]
    path = [axes.at(*point) for point in shown.trajectory]
    target_x, _ = axes.at(shown.target_latency_ms, shown.y[0])
    parts = [
        f'<svg id="plot" viewBox="0 0 {WIDTH} {HEIGHT}" role="group" tabindex="0" aria-label="{escape(y_label)} over '
        f'{escape(x_label)}">',
        f'<clipPath id="frame"><rect x="{LEFT}" y="{TOP}" width="{RIGHT - LEFT}" height="{BOTTOM - TOP}"/></clipPath>',
        *_grid(axes, x_label, y_label),
        *(_dot(i, mark, 2 if len(marks) > FEW else 3.5) for i, mark in enumerate(marks) if mark.css == "dot"),
        f'<line class="target" x1="{target_x}" x2="{target_x}" y1="{TOP}" y2="{BOTTOM}"/>',
        _limit(axes, shown.limit_ms),
        _polyline("front", front),
        _polyline("path", path),
        *(_error_bars(mark) for mark in marks),
        *(_mark(i, mark) for i, mark in enumerate(marks) if mark.css != "dot"),
        *_names(marks, [front, path], target_x, f"target {shown.target_latency_ms:g} ms"),
        '<circle id="ring" r="10" cx="-50" cy="-50"/>',
        "</svg>",
    ]
    return "\n".join(part for part in parts if part)


def _grid(axes: Axes, x_label: str, y_label: str) -> Iterable[str]:
    for value in ticks(axes.x, 9):
        x, _ = axes.at(value, axes.y[0])
        yield f'<line class="grid" x1="{x}" x2="{x}" y1="{TOP}" y2="{BOTTOM}"/>'
        yield f'<text class="tick" x="{x}" y="{BOTTOM + 18}" text-anchor="middle">{value:g}</text>'
    for value in ticks(axes.y, 7):
        _, y = axes.at(axes.x[0], value)
        yield f'<line class="grid" x1="{LEFT}" x2="{RIGHT}" y1="{y}" y2="{y}"/>'
        yield f'<text class="tick" x="{LEFT - 8}" y="{y + 4}" text-anchor="end">{value:g}</text>'
    yield f'<text class="axis" x="{(LEFT + RIGHT) / 2}" y="{HEIGHT - 8}" text-anchor="middle">{escape(x_label)}</text>'
    middle = (TOP + BOTTOM) / 2
    yield (
        f'<text class="axis" x="16" y="{middle}" text-anchor="middle" transform="rotate(-90 16 {middle})">'
        f"{escape(y_label)}</text>"
    )


def _polyline(css: str, points: Sequence[tuple[float, float]]) -> str:
    if len(points) < 2:
        return ""
    return f'<polyline class="{css}" clip-path="url(#frame)" points="{" ".join(f"{x},{y}" for x, y in points)}"/>'


def _limit(axes: Axes, limit_ms: float | None) -> str:
    if limit_ms is None or not axes.shows(limit_ms, axes.y[0]):
        return ""
    x, _ = axes.at(limit_ms, axes.y[0])
    return f'<line class="limit" x1="{x}" x2="{x}" y1="{TOP}" y2="{BOTTOM}"/>'


def _dot(index: int, mark: Mark, radius: float) -> str:
    return f'<circle data-i="{index}" class="dot" cx="{mark.x}" cy="{mark.y}" r="{radius}"/>'


def _mark(index: int, mark: Mark) -> str:
    shape = {"best": STAR, "finalist": STAR, "reference": DIAMOND}.get(mark.css)
    if shape is None:
        return f'<circle data-i="{index}" class="{mark.css}-point" cx="{mark.x}" cy="{mark.y}" r="3"/>'
    scale = " scale(0.7)" if mark.css == "finalist" else ""
    spoken = escape(mark.named.replace("\n", ", ") or mark.css)
    return (
        f'<path data-i="{index}" class="{mark.css}" d="{shape}" transform="translate({mark.x} {mark.y}){scale}" '
        f'tabindex="0" role="img" aria-label="{spoken}"/>'
    )


def _error_bars(mark: Mark) -> str:
    if not mark.named or not (mark.x_error or mark.y_error):
        return ""
    x, y, dx, dy = mark.x, mark.y, mark.x_error, mark.y_error
    return f'<path class="error {mark.css}-error" d="M{x - dx:.1f} {y}h{2 * dx:.1f}M{x} {y - dy:.1f}v{2 * dy:.1f}"/>'


def _names(
    marks: Sequence[Mark], lines: Sequence[Sequence[tuple[float, float]]], target_x: float, target: str
) -> Iterable[str]:
    """The printed names, the best's first, off one another and off the lines."""
    named = sorted((m for m in marks if m.named), key=lambda m: m.css != "best")
    labels = [_label(m) for m in named]
    bars = [[(m.x - m.x_error, m.y), (m.x + m.x_error, m.y)] for m in named]
    bars += [[(m.x, m.y - m.y_error), (m.x, m.y + m.y_error)] for m in named]
    obstacles = [along(line, 15.0) for line in [*lines, *bars, [(target_x, TOP), (target_x, BOTTOM)]]]
    obstacles.append(np.array([(m.x, m.y, 0.6) for m in marks if not m.named], dtype=float).reshape(-1, 3))
    labels.append(Label(target_x, TOP + 6, GLYPH * len(target), LINE))
    boxes = place_labels(labels, np.concatenate(obstacles), Box(LEFT + 2, TOP, RIGHT, BOTTOM))
    for mark, box in zip(named, boxes, strict=False):
        end_x, end_y = nearest_point(box, mark.x, mark.y)
        if abs(end_x - mark.x) + abs(end_y - mark.y) > LEADER_FROM:
            yield f'<line class="leader" x1="{mark.x}" y1="{mark.y}" x2="{end_x:.1f}" y2="{end_y:.1f}"/>'
        yield from _lines(mark.named, box, f"name {mark.css}-name")
    yield from _lines(target, boxes[-1], "name target-name")


def _label(mark: Mark) -> Label:
    """A name's size, guessed: no font is at hand when the report is written."""
    lines = mark.named.split("\n")
    glyph = BOLD_GLYPH if mark.css == "best" else GLYPH
    return Label(mark.x, mark.y, glyph * max(map(len, lines)), LINE * len(lines))


def _lines(text: str, box: Box, css: str) -> Iterable[str]:
    for number, line in enumerate(text.split("\n")):
        yield f'<text class="{css}" x="{box.x0:.1f}" y="{box.y0 + LINE * number + 11.5:.1f}">{escape(line)}</text>'


TEMPLATE = "template.html"
BOOKKEEPING = frozenset({"format", "version", "status", "files"})
FILES: Mapping[str, str] = {
    "best.json": "the best network, read by every command that takes a network",
    "best.safetensors": "the best network as the evaluator trained it, read by evaluate, predict and export",
    "candidates.csv": "every network that the block search judged",
    "pareto.csv": "the Pareto front",
    "netadapt.csv": "NetAdapt's steps",
    "study.log": "the block search as an Optuna journal, which optuna-dashboard opens",
    "measured.jsonl": "whole networks timed",
    "manifest.json": "how it was made",
    "log.txt": "what was done when, and where an error was raised",
    "pareto.png": "the picture",
    "pareto.svg": "the picture, as vectors",
}


def render_html(summary: RunSummary) -> str:
    """The report of ``summary`` as one HTML document.

    Tables and a static picture stand without a script; with it, every drawn network shows its figures and blocks.
    """
    shown = picture(summary)
    points = plotted_points(summary, shown)
    fields = {
        "title": escape(summary.title),
        "headline": _headline(summary),
        "notes": "".join(f"<p>{escape(note)}</p>" for note in summary.notes),
        "plot": scatter_svg(shown, points.marks, x_label(summary), y_label(summary)),
        "legend": _legend(summary, shown),
        "networks": _networks_table(summary),
        "caption": escape(final_caption(summary)).replace("\n", "<br>"),
        "steps": _steps_section(summary),
        "manifest": _manifest(summary.manifest),
        "files": _files(summary.manifest.get("files", _written(summary))),
        "data": _safe_json({**points.data(), "accuracy": summary.score or "top-1"}),
    }
    template = (files("mnv3search.report") / TEMPLATE).read_text(encoding="utf-8")
    # one pass, so that text which looks like a placeholder stays text
    return re.sub(r"\{\{(\w+)\}\}", lambda match: fields[match[1]], template)


def _headline(summary: RunSummary) -> str:
    """The sentences as terms; what is to be read first is marked, and the target by whether it was met."""
    marks = {"Found" if summary.no_ranking is None else "No ranking": ' class="first"'}
    met = summary.verdict.met if summary.verdict and summary.no_ranking is None else None
    if met is not None:
        marks["Target"] = f' class="{"pass" if met else "fail"}"'
    return "".join(
        f"<dt>{escape(s.label)}</dt><dd{marks.get(s.label, '')}>{escape(s.text)}</dd>" for s in headline(summary)
    )


def _safe_json(content: object) -> str:
    """JSON that cannot close the script element around it."""
    text = json.dumps(content, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _legend(summary: RunSummary, shown: Picture) -> str:
    entries = [("best", "the best (bars: ±1 standard deviation)")]
    entries += [("front", "Pareto front")] if shown.front else []
    entries += [("path", "NetAdapt, step by step")] if len(shown.trajectory) > 1 else []
    entries += [("finalist", "the other finalists")] if shown.finalists else []
    entries += [("reference", "published networks, by the same evaluator")] if shown.references else []
    entries += [("dot", shown.candidates_label)] if shown.evaluated else []
    entries += [("limit", shown.limit_label)] if shown.limit_ms is not None else []
    return "".join(f'<li class="{css}">{escape(words)}</li>' for css, words in entries)


def _table(heads: Sequence[str], rows: Iterable[tuple[str, Sequence[str]]]) -> str:
    """Rows are (class, cells); the first cell heads its row; everything is escaped."""
    head = "".join(f'<th scope="col">{escape(text)}</th>' for text in heads)
    body = "".join(
        f'<tr class="{escape(css)}"><th scope="row">{escape(cells[0])}</th>'
        f"{''.join(f'<td>{escape(cell)}</td>' for cell in cells[1:])}</tr>"
        for css, cells in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _networks_table(summary: RunSummary) -> str:
    everyone = [summary.best, *summary.finalists, *summary.references]
    measured = any(judged.measured_ms is not None for judged in everyone)
    heads = [
        "network", y_label(summary), "published top-1, %",
        f"latency on {summary.device}, ms, {LATENCY_WORDS[summary.device_kind]}",
        *(["measured whole, ms"] if measured else []), "MAdds, M", "parameters, M", "from",
    ]  # fmt: skip
    rows = []
    for judged in everyone:
        cells = [
            judged.name,
            top1_text(judged.top1, judged.top1_std, estimated=summary.top1_estimated),
            published_text(judged.published_top1),
            latency_text(judged.latency_ms, judged.latency_error_ms, summary.device_kind),
            *([with_error(judged.measured_ms, judged.measured_error_ms, 2)] if measured else []),
            millions(judged.madds), millions(judged.parameters, 2), ORIGIN_WORDS.get(judged.origin, judged.origin),
        ]  # fmt: skip
        rows.append(("best" if judged is summary.best else judged.origin, cells))
    return _table(heads, rows)


def _steps_section(summary: RunSummary) -> str:
    if not summary.steps:
        return "<p>NetAdapt made no step in this run.</p>"
    heads = (
        "step",
        "narrowed",
        summary.score or "top-1, %",
        "change" if summary.score else "change, points",
        "latency, ms",
        "change, ms",
        "least cut, ms",
        "proposals",
    )
    rows: list[tuple[str, Sequence[str]]] = []
    if summary.seed is not None:
        seed = summary.seed
        rows.append(("", ("0", "(seed)", *_figures(summary, seed), *([NO_FIGURE] * 2))))
    rows += [
        ("", (str(s.number), s.change, *_figures(summary, s), small_ms(s.required_ms), str(s.proposals)))
        for s in summary.steps
    ]
    return _table(heads, rows)


def _figures(summary: RunSummary, network: Candidate | Step) -> tuple[str, str, str, str]:
    step = network if isinstance(network, Step) else None
    return (
        top1_text(network.top1, network.top1_std, estimated=summary.top1_estimated),
        signed(step.delta_top1, 3) if step else NO_FIGURE,
        latency_text(network.latency_ms, summary.latency_errors_ms.get(network.architecture), summary.device_kind),
        change_ms(step.delta_latency_ms) if step else NO_FIGURE,
    )


def _manifest(content: object) -> str:
    """Nested mappings as nested lists of terms."""
    if isinstance(content, Mapping):
        shown = {key: value for key, value in content.items() if key not in BOOKKEEPING}
        entries = (
            (str(key), _command(value) if key == "command" else _manifest(value)) for key, value in shown.items()
        )
        return f"<dl>{''.join(f'<dt>{escape(key)}</dt><dd>{value}</dd>' for key, value in entries)}</dl>"
    if isinstance(content, (list, tuple)):
        return escape(", ".join(str(value) for value in content))
    return escape(f"{content:.4g}" if isinstance(content, float) else str(content))


def _command(words: object) -> str:
    return escape(shlex.join(map(str, words))) if isinstance(words, (list, tuple)) else _manifest(words)


def _written(summary: RunSummary) -> Mapping[str, str]:
    """The files that a run of this kind leaves."""
    searched = {"candidates.csv", "study.log"} if not summary.candidates else set()
    absent = searched | ({"netadapt.csv"} if not summary.steps else set())
    absent |= {"best.safetensors"} if summary.trained is None else set()
    absent |= {"measured.jsonl"} if summary.best.measured_ms is None else set()
    return {name: words for name, words in FILES.items() if name not in absent}


def _files(content: object) -> str:
    if isinstance(content, Mapping):
        entries = [(str(name), str(words)) for name, words in content.items()]
    else:
        entries = [(str(name), "") for name in content] if isinstance(content, (list, tuple)) else []
    return "".join(
        f'<li><a href="./{escape(name)}">{escape(name)}</a>{f" – {escape(words)}" if words else ""}</li>'
        for name, words in entries
    )
