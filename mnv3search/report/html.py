"""``report.html``: one self-contained, interactive file that asks nothing of any network."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files

from mnv3search.candidate import Candidate
from mnv3search.layer_search import Step
from mnv3search.report.console import final_caption
from mnv3search.report.picture import Picture, picture
from mnv3search.report.points import plotted_points
from mnv3search.report.scatter_svg import scatter_svg
from mnv3search.report.summary import RunSummary
from mnv3search.report.wording import (
    LATENCY_WORDS,
    NO_FIGURE,
    ORIGIN_WORDS,
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
