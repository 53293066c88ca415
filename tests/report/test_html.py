from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest

from mnv3search.latency.confidence import z_of
from mnv3search.report.html import render_html
from mnv3search.report.pareto import ParetoFigure, pareto_plot
from mnv3search.report.summary import RunSummary, TargetVerdict

NASTY = '</script><script>alert("x")</script><!-- & {{data}} \u2028'


class _Page(HTMLParser):
    """Tags, attributes and the text of each element by tag."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.cells: list[list[str]] = []
        self._stack: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._stack.append(tag)
        if tag == "script":
            self.scripts.append("")
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th") and self.cells:
            self.cells[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        while self._stack and self._stack.pop() != tag:
            pass

    def handle_data(self, data: str) -> None:
        if "script" in self._stack:
            self.scripts[-1] += data
        elif self.cells and self._stack[-1:] and self._stack[-1] in ("td", "th"):
            self.cells[-1][-1] += data


@pytest.fixture(scope="module")
def drawn(summary: RunSummary) -> ParetoFigure:
    """The plot, for pages of which other parts are looked at."""
    return ParetoFigure(summary)


@pytest.fixture(scope="module")
def html(summary: RunSummary) -> str:
    return render_html(summary)


@pytest.fixture(scope="module")
def page(html: str) -> _Page:
    return _Page(html)


def _data(page: _Page) -> dict[str, Any]:
    return json.loads(page.scripts[0])  # type: ignore[no-any-return]


def test_nothing_is_loaded_from_anywhere(html: str, page: _Page) -> None:
    assert not re.search(r"https?:|//[a-z]|url\([^#]|@import", html.replace("\n// ", ""))
    assert not [t for t, _ in page.tags if t in ("link", "img", "iframe", "object", "embed", "base")]
    loads = [(t, a) for t, attrs in page.tags for a in attrs if a in ("src", "srcset", "data", "action", "xlink:href")]
    assert loads == []
    policy = next(a["content"] for t, a in page.tags if t == "meta" and "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'")
    links = [a["href"] for t, a in page.tags if t == "a"]
    assert links
    assert all(link is not None and link.startswith("./") for link in links)


def test_every_record_has_its_mark_and_all_that_is_shown_of_it(page: _Page) -> None:
    data = _data(page)
    marks = [(float(a["x"] or 0), float(a["y"] or 0)) for t, a in page.tags if t == "use" and "y" in a]
    for point in data["points"]:  # where matplotlib put the mark
        assert min(abs(x - point[0]) + abs(y - point[1]) for x, y in marks) < 0.2
    for _x, _y, name, top1, latency, madds, parameters, origin, blocks, end, _address in data["points"]:
        assert name
        assert origin
        assert re.fullmatch(r"\d+\.\d+ ±\d+\.\d+ % pred\.", top1)
        assert re.fullmatch(r"\d+\.\d+ ±\d+\.\d+ ms est\.", latency)
        assert float(madds) > 0
        assert float(parameters) > 0
        assert all(0 <= i < len(data["blocks"]) for i in blocks)
        assert len(blocks) >= 1
        assert len(data["ends"][end]) == 2


def test_hover_shows_the_blocks_of_the_network_itself(page: _Page, summary: RunSummary) -> None:
    data = _data(page)
    names = {point[2]: point for point in data["points"]}
    best = names[summary.best.name]
    assert best is data["points"][-1], "the best is on top"
    truth = [
        [b.kernel_size, b.expanded_channels, b.out_channels, b.stride,
         b.squeeze_excite.squeeze_channels if b.squeeze_excite else 0, b.activation]
        for b in summary.best.architecture.blocks
    ]  # fmt: skip
    assert [data["blocks"][i] for i in best[8]] == truth
    assert len(data["front"]) == len(summary.front)
    assert {f"NetAdapt, step {s.number}: {s.change}" for s in summary.steps} <= set(names)


def test_networks_are_called_as_commands_take_them(page: _Page, summary: RunSummary) -> None:
    addresses = {point[2]: point[10] for point in _data(page)["points"]}
    assert addresses["best"] == "", "the folder itself names its best"
    assert addresses["mobilenet_v3_large@0.75"] == "mobilenet_v3_large@0.75"
    places = {c.number: place for place, c in enumerate(summary.front, start=1) if c.origin == "block_search"}
    for number, place in places.items():
        assert addresses[f"trial {number}, on the front"] == f":front/{place}"
    dots = {name: address for name, address in addresses.items() if name.startswith("trial") and "front" not in name}
    assert dots
    assert all(address == ":" + name.removeprefix("trial ") for name, address in dots.items())
    assert all(addresses[f"NetAdapt, step {s.number}: {s.change}"] is None for s in summary.steps)


def test_named_networks_are_reached_by_the_keyboard(page: _Page, summary: RunSummary) -> None:
    reached = {a["data-i"]: a["aria-label"] for _, a in page.tags if a.get("tabindex") == "0" and "data-i" in a}
    assert set(reached.values()) == {n.name for n in (*summary.references, *summary.finalists, summary.best)}
    points = _data(page)["points"]
    assert all(points[int(index or -1)][2] == name for index, name in reached.items())


def test_the_limit_of_the_confidence_is_drawn(summary: RunSummary) -> None:
    best = replace(summary.best, latency_ms=45.0, latency_error_ms=1.5)
    for confidence, drawn in ((0.9, True), (0.5, False)):
        verdict = TargetVerdict(summary.target_latency_ms, confidence, None, 0.0)
        asked = replace(summary, best=best, verdict=verdict)
        assert ("limit for the confidence asked for" in render_html(asked)) is drawn
        limit = pareto_plot(asked).limit_ms
        assert limit == (pytest.approx(summary.target_latency_ms / (1 + z_of(0.9) / 30)) if drawn else None)
    timed = replace(summary, best=replace(best, measured_ms=46.0, measured_error_ms=0.1), verdict=verdict)
    assert pareto_plot(timed).limit_ms is None, "a time stands for itself"


def test_published_stands_apart_from_predicted(page: _Page, summary: RunSummary) -> None:
    rows = [row for row in page.cells if row]
    heads = next(row for row in rows if row[0] == "network")
    predicted, published = heads.index("Predicted ImageNet top-1, %"), heads.index("published top-1, %")
    by_name = {row[0]: row for row in rows if len(row) == len(heads)}
    for network in summary.references:
        assert by_name[network.name][published] == f"{network.published_top1:.1f}"
        assert by_name[network.name][predicted].endswith("pred.")
    assert by_name["best"][published] == "–"
    assert all(row[published].find("±") < 0 for name, row in by_name.items() if name != "network")
    assert "estimated" in heads[published + 1]
    assert all(row[published + 1].endswith("est.") for name, row in by_name.items() if name != "network")


def test_measured_latencies_have_a_column_only_where_there_are_any(
    summary: RunSummary, drawn: ParetoFigure, html: str
) -> None:
    assert "measured whole, ms" not in html
    timed = replace(summary, best=replace(summary.best, measured_ms=12.345, measured_error_ms=0.067))
    page = _Page(render_html(timed, drawn))
    assert any("12.35 ±0.07" in row or "12.35 ±0.07" in row or "12.34 ±0.07" in row for row in page.cells)


@pytest.mark.parametrize(("met", "css"), [(True, "pass"), (False, "fail")])
def test_a_measured_winner_is_marked_as_pass_or_fail(
    summary: RunSummary, drawn: ParetoFigure, met: bool, css: str
) -> None:
    timed = replace(summary.best, measured_ms=49.0, measured_error_ms=0.1)
    html = render_html(replace(summary, best=timed, verdict=TargetVerdict(50.0, 0.9, met, 2.0)), drawn)
    assert f'<dt>Target</dt><dd class="{css}">{css.upper()}: timed whole the best takes 49.00 ±0.10 ms' in html
    assert "measured.jsonl" in html
    assert "measured.jsonl" not in render_html(summary, drawn)


@pytest.mark.parametrize(("no_ranking", "label"), [(None, "Found"), ("chance", "No ranking")])
def test_what_is_read_first_stands_out(
    summary: RunSummary, drawn: ParetoFigure, no_ranking: str | None, label: str
) -> None:
    assert f'<dt>{label}</dt><dd class="first">' in render_html(replace(summary, no_ranking=no_ranking), drawn)


def test_few_networks_are_drawn_large(summary: RunSummary) -> None:
    few = replace(summary, candidates=summary.candidates[:5])
    large, small = (ParetoFigure(s).axes.collections[0] for s in (few, summary))
    assert large.properties()["sizes"][0] > 3 * small.properties()["sizes"][0]


def test_steps_manifest_and_headline_are_there_without_a_script(html: str, page: _Page, summary: RunSummary) -> None:
    narrowed = [row[1] for row in page.cells if len(row) == 8]
    assert [s.change for s in summary.steps] == narrowed[2:]
    for words in ("AMD EPYC 7B13", "--target-latency 50ms", "optuna", "<svg", "How sure", "beats the best direct"):
        assert words in html


def test_text_from_outside_is_escaped(summary: RunSummary) -> None:
    nasty = replace(
        summary,
        title=NASTY, space=NASTY, device=NASTY, evaluator=NASTY, notes=[NASTY],
        best=replace(summary.best, name=NASTY),
        references=[replace(summary.references[0], name=NASTY)],
        steps=[replace(summary.steps[0], change=NASTY)],
        manifest={NASTY: [NASTY, {NASTY: NASTY}], "files": {NASTY: NASTY, "javascript:alert(1)": ""}},
    )  # fmt: skip
    html = render_html(nasty)
    page = _Page(html)
    assert len(page.scripts) == 2, "the report's own data and script, nothing else"
    assert "alert(" not in page.scripts[1]
    assert "<script>alert" not in html
    assert "<!--" not in html
    assert any(point[2] == NASTY for point in _data(page)["points"])
    assert all((a["href"] or "").startswith("./") for t, a in page.tags if t == "a")


def test_the_same_summary_gives_the_same_report(summary: RunSummary, html: str) -> None:
    assert render_html(summary) == html


def test_a_large_run_stays_small(make: Callable[..., RunSummary], summary: RunSummary) -> None:
    many = replace(summary, candidates=[
        replace(c, number=i) for i, c in enumerate(list(summary.candidates) * 25)
    ], front=list(summary.front))  # fmt: skip
    html = render_html(many)
    assert len(html.encode()) < 2_000_000
    assert "10,000 networks evaluated (2,000 drawn" in html


def test_a_layer_search_alone_shows_no_front_and_no_study(summary: RunSummary, html: str) -> None:
    alone = replace(summary, space=None, candidates=[], front=summary.front[-1:], finalists=[])
    found = render_html(alone)
    assert _data(_Page(found))["front"] == []
    for words in ("networks evaluated", "Pareto front</text>", "study.log", "candidates.csv"):
        assert words not in found
    assert "NetAdapt, step by step</text>" in found
    assert "narrowed until it takes at most 50 ms" in found
    assert "study.log" in html


def test_a_command_reads_as_it_was_typed(summary: RunSummary, drawn: ParetoFigure) -> None:
    manifest = {"command": ["mnv3search", "run", "--out", "my runs"], "status": "x"}
    html = render_html(replace(summary, manifest=manifest), drawn)
    assert "mnv3search run --out &#x27;my runs&#x27;" in html
    assert "<dt>status</dt>" not in html


def test_a_run_without_steps_errors_or_references(summary: RunSummary) -> None:
    best = replace(summary.best, top1_std=None, latency_error_ms=None)
    bare = replace(
        summary, best=best, references=[], finalists=[], candidates=[], front=[], seed=None, steps=[], notes=[],
        manifest={}, latency_errors_ms={},
    )  # fmt: skip
    html = render_html(bare)
    assert "NetAdapt made no step" in html
    assert "±? % pred." in html
    assert "±? ms est." in html
