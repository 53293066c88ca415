"""``report.html``: one self-contained, interactive file that asks nothing of any network."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files

from mnv3search.architecture import Architecture
from mnv3search.blocks import Block
from mnv3search.candidate import Candidate
from mnv3search.cost import count
from mnv3search.layer_search import Step
from mnv3search.layers import Layer, unit_layers, units
from mnv3search.report import plots
from mnv3search.report.pareto import ParetoFigure
from mnv3search.report.summary import (
    LATENCY_WORDS,
    NO_FIGURE,
    ORIGIN_WORDS,
    RunSummary,
    ScoredNetwork,
    change_ms,
    headline,
    millions,
    signed,
    small_ms,
    x_label,
    y_label,
)
from mnv3search.report.tables import final_caption, network_cells

# The plot's colours, which the page's own follow where it is dark.
PAGE_COLOURS = {
    "#ffffff": "--paper", plots.INK: "--ink", plots.QUIET: "--quiet", plots.FRONT: "--front", plots.BEST: "--best",
    plots.PATH: "--path", plots.DOTS: "--dot", plots.GRID: "--grid", plots.FRAME: "--rule", plots.LEADER: "--quiet",
    plots.REFERENCE_BARS: "--quiet",
}  # fmt: skip
POINTS_PER_INCH = 72  # of matplotlib's SVG


class Plot:
    """A run's Pareto plot for the page: the SVG, and at each drawn network what a reader sees who points at it.

    Least important networks come first: what comes later is drawn above and found first. Equal blocks are held once.
    """

    def __init__(self, drawn: ParetoFigure) -> None:
        self.drawn, self.summary = drawn, drawn.summary
        self.points: list[list[object]] = []
        self.blocks: dict[tuple[object, ...], int] = {}
        self.ends: dict[tuple[str, str], int] = {}
        self.front: list[int] = []
        self.named: list[int] = []
        shown = drawn.shown
        positions = {id(c): position for position, c in enumerate(self.summary.front, start=1)}
        for on_front, members in ((False, shown.candidates), (True, shown.front)):
            for c in members:
                if not shown.within_axes(c):
                    continue
                name = f"trial {c.number}" if c.origin == "block_search" else f"by {ORIGIN_WORDS[c.origin]}"
                if on_front:
                    self.front.append(len(self.points))
                    self._add(c, f"{name}, on the front", c.origin, f":front/{positions[id(c)]}")
                else:
                    self._add(c, name, c.origin, f":{c.number}")
        for step in self.summary.steps:
            self._add(step, f"NetAdapt, step {step.number}: {step.change}", "netadapt", None)
        for network in shown.references:  # "(for 10 classes)" is no network's name
            self._add(network, network.name, network.origin, None if " " in network.name else network.name)
        for network in shown.finalists:
            self._add(network, network.name, network.origin, network.address)
        if shown.best is not None:
            self._add(shown.best, shown.best.name, shown.best.origin, "")  # the folder itself names it

    def _add(self, network: Candidate | Step | ScoredNetwork, name: str, origin: str, address: str | None) -> None:
        """Add a network; ``address`` is what commands call it after the run's folder, None where no command can."""
        summary, architecture = self.summary, network.architecture
        if isinstance(network, ScoredNetwork):
            self.named.append(len(self.points))
        counts = count(architecture) if isinstance(network, Step) else network
        blocks = [
            self.blocks.setdefault(_block_row(block, unit_layers(unit)), len(self.blocks))
            for block, unit in zip(architecture.blocks, units(architecture)[1:-1], strict=True)
        ]
        self.points.append(
            [
                *self._position(network.latency_ms, network.top1 or 0.0), name, summary.top1_of(network),
                summary.latency_of(network), millions(counts.madds), millions(counts.parameters, 2),
                ORIGIN_WORDS.get(origin, origin), blocks,
                self.ends.setdefault(_ends(architecture), len(self.ends)), address,
            ]
        )  # fmt: skip

    def _position(self, latency_ms: float, top1: float) -> tuple[float, float]:
        """A network's position in the SVG, whose y runs downwards."""
        figure, to_pixels = self.drawn.figure, self.drawn.axes.transData
        x, y = to_pixels.transform((latency_ms, top1)) / figure.dpi * POINTS_PER_INCH
        return round(float(x), 1), round(figure.get_figheight() * POINTS_PER_INCH - float(y), 1)

    def svg(self) -> str:
        """The plot, in the page's colours; named networks can be reached by the tab key, the ring marks the shown."""
        text = self.drawn.svg
        drawn = re.sub(r"<defs>\s*<style.*?</style>\s*</defs>", "", text[text.index(">", text.index("<svg")) + 1 :])
        colours = {colour: f"var({name})" for colour, name in PAGE_COLOURS.items()}
        drawn = re.sub(r": (#[0-9a-f]{6})(?=[;\"])", lambda m: f": {colours.get(m[1], m[1])}", drawn)
        drawn = re.sub(r"font-family: [^;\"]*; ?", "", drawn).replace("xlink:href=", "href=").removesuffix("</svg>\n")
        width, height = (float(side) * POINTS_PER_INCH for side in self.drawn.figure.get_size_inches())
        reached = "".join(
            f'<circle data-i="{i}" cx="{x}" cy="{y}" r="7" tabindex="0" role="img" aria-label="{escape(str(name))}"/>'
            for i in self.named
            for x, y, name in [self.points[i][:3]]
        )
        label = f"{y_label(self.summary)} over {x_label(self.summary)}"
        return (
            f'<svg id="plot" viewBox="0 0 {width:g} {height:g}" role="group" tabindex="0" aria-label="{escape(label)}">'
            f'{drawn}{reached}<circle id="ring" r="7" cx="-50" cy="-50"/></svg>'
        )

    def data(self) -> dict[str, object]:
        """What the page's script reads.

        ``points``: [x, y, name, top-1, latency, MAdds, parameters, origin, block indices, end index, address];
        ``blocks``: [kernel, expanded, out, stride, squeeze, activation]; ``ends``: [stem, head]; ``front``: indices.
        """
        return {"points": self.points, "blocks": list(self.blocks), "ends": list(self.ends), "front": self.front}


def _block_row(block: Block, layers: Sequence[Layer]) -> tuple[object, ...]:
    """Largest kernel, expanded and output channels, stride, squeeze channels, first activation of any kind of block."""
    kernel = max(layer.kernel_size for layer in layers)
    squeeze = next((layer.out_channels for layer in layers if layer.kind == "squeeze_reduce"), 0)
    return (kernel, block.expanded_channels, block.out_channels, block.stride, squeeze, layers[0].activation)


def _ends(architecture: Architecture) -> tuple[str, str]:
    stem, head, size = architecture.stem, architecture.head, architecture.resolution
    first = f"{size}×{size} input, stem {stem.kernel_size}×{stem.kernel_size}, {stem.out_channels}, {stem.activation}"
    layers = [str(c) for c in (head.feature_channels, head.hidden_channels, architecture.classes) if c is not None]
    return first, f"head {' → '.join(layers)}, {head.activation}"


TEMPLATE = "template.html"
BOOKKEEPING = frozenset({"format", "version", "status", "files"})
FILES: Mapping[str, str] = {
    "best.json": "the best network, read by every command that takes a network",
    "best.safetensors": "the best network as the evaluator trained it, read by evaluate, predict and export",
    "candidates.csv": "every network that the block search evaluated",
    "pareto.csv": "the Pareto front",
    "netadapt.csv": "NetAdapt's steps",
    "study.log": "the block search as an Optuna journal, which optuna-dashboard opens",
    "measured.jsonl": "whole networks timed",
    "manifest.json": "how it was made",
    "log.txt": "what was done when, and where an error was raised",
    "pareto.png": "the plot",
    "pareto.svg": "the plot, as vectors",
}


def render_html(summary: RunSummary, drawn: ParetoFigure | None = None) -> str:
    """The report of ``summary`` as one HTML document; ``drawn`` is its plot, where that was drawn already.

    Tables and a static plot stand without a script; with it, every drawn network shows its figures and blocks.
    """
    plot = Plot(drawn or ParetoFigure(summary))
    fields = {
        "title": escape(summary.title),
        "headline": _headline(summary),
        "notes": "".join(f"<p>{escape(note)}</p>" for note in summary.notes),
        "plot": plot.svg(),
        "networks": _networks_table(summary),
        "caption": escape(final_caption(summary)).replace("\n", "<br>"),
        "steps": _steps_section(summary),
        "manifest": _manifest(summary.manifest),
        "files": _files(summary.manifest.get("files", _written(summary))),
        "data": _safe_json({**plot.data(), "accuracy": summary.score or "top-1"}),
    }
    template = (files("mnv3search.report") / TEMPLATE).read_text(encoding="utf-8")
    # one pass, so that text which looks like a placeholder stays text
    return re.sub(r"\{\{(\w+)\}\}", lambda match: fields[match[1]], template)


def _headline(summary: RunSummary) -> str:
    """The sentences as terms: the first to read is marked, and the target by whether it was met."""
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
    heads = [
        "network", y_label(summary), "published top-1, %",
        f"latency on {summary.device}, ms, {LATENCY_WORDS[summary.device_kind]}",
        *(["measured whole, ms"] if summary.timed else []), "MAdds, M", "parameters, M", "from",
    ]  # fmt: skip
    rows = (
        ("best" if n is summary.best else n.origin, [*cells, ORIGIN_WORDS.get(n.origin, n.origin)])
        for n, cells in network_cells(summary)
    )
    return _table(heads, rows)


def _steps_section(summary: RunSummary) -> str:
    if not summary.steps:
        return "<p>NetAdapt made no step in this run.</p>"
    top1, change = ("top-1, %", "change, points") if summary.score is None else (summary.score, "change")
    heads = ("step", "narrowed", top1, change, "latency, ms", "change, ms", "least cut, ms", "proposals")
    networks: list[Candidate | Step] = [*([summary.seed] if summary.seed else []), *summary.steps]
    return _table(heads, [("", _step_cells(summary, network)) for network in networks])


def _step_cells(summary: RunSummary, network: Candidate | Step) -> list[str]:
    top1, latency = summary.top1_of(network, unit=False), summary.latency_of(network, unit=False)
    if not isinstance(network, Step):
        return ["0", "(seed)", top1, NO_FIGURE, latency, *[NO_FIGURE] * 3]
    return [
        str(network.number), network.change, top1, signed(network.delta_top1, 3), latency,
        change_ms(network.delta_latency_ms), small_ms(network.required_ms), str(network.proposals),
    ]  # fmt: skip


def _manifest(content: object, key: object = None) -> str:
    """Nested mappings as nested lists of terms; a command as a shell reads it."""
    if isinstance(content, Mapping):
        entries = ((str(name), _manifest(value, name)) for name, value in content.items() if name not in BOOKKEEPING)
        return f"<dl>{''.join(f'<dt>{escape(name)}</dt><dd>{value}</dd>' for name, value in entries)}</dl>"
    if isinstance(content, (list, tuple)):
        words = [str(value) for value in content]
        return escape(shlex.join(words) if key == "command" else ", ".join(words))
    return escape(f"{content:.4g}" if isinstance(content, float) else str(content))


def _written(summary: RunSummary) -> Mapping[str, str]:
    """The files that a run of this kind leaves."""
    present = {
        "candidates.csv": bool(summary.candidates),
        "study.log": bool(summary.candidates),
        "netadapt.csv": bool(summary.steps),
        "best.safetensors": summary.trained is not None,
        "measured.jsonl": summary.best.measured_ms is not None,
    }
    return {name: words for name, words in FILES.items() if present.get(name, True)}


def _files(content: object) -> str:
    """The files with what they hold, where the manifest says it; a list names them alone."""
    if isinstance(content, (list, tuple)):
        content = dict.fromkeys(content, "")
    entries = content.items() if isinstance(content, Mapping) else ()
    return "".join(
        f'<li><a href="./{escape(str(name))}">{escape(str(name))}</a>{f" – {escape(str(words))}" if words else ""}</li>'
        for name, words in entries
    )
