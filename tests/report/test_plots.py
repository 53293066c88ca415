from __future__ import annotations

import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest

from mnv3search.errors import RunError
from mnv3search.report.pareto import MAX_SHOWN, ParetoFigure, pareto_plot, shown_candidates
from mnv3search.report.plots import draw_comparison
from mnv3search.report.summary import RunSummary


def _svg_text(path: Path) -> str:
    return " ".join("".join(e.itertext()) for e in ET.fromstring(path.read_text()).iter() if e.tag.endswith("text"))


@pytest.fixture(scope="module")
def drawn(summary: RunSummary, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("drawn")
    ParetoFigure(summary).save(folder / "pareto.png", folder / "pareto.svg")
    return folder


def test_files_are_a_png_and_an_svg_and_nothing_else(drawn: Path) -> None:
    import matplotlib.image as image

    pixels = image.imread(drawn / "pareto.png")
    assert pixels.shape[:2] == (900, 1350)
    assert pixels.std() > 0.01, "the picture is not blank"
    edges = (pixels[0], pixels[-1], pixels[:, 0], pixels[:, -1])
    assert all((edge == 1).all() for edge in edges), "nothing is cut off at an edge"
    assert ET.fromstring((drawn / "pareto.svg").read_text()).tag.endswith("svg")
    assert sorted(p.name for p in drawn.iterdir()) == ["pareto.png", "pareto.svg"]


def test_the_svg_says_what_is_drawn(drawn: Path, summary: RunSummary) -> None:
    text = _svg_text(drawn / "pareto.svg")
    for words in (
        "Latency on pixel1, ms (estimated ±", "Predicted ImageNet top-1, %", summary.title, "target 50 ms",
        "Pareto front", "NetAdapt", "best: ", "pred.", "est.", *(j.name for j in summary.references),
    ):  # fmt: skip
        assert words in text


def test_labels_stand_at_their_marks_in_both_files(drawn: Path, summary: RunSummary) -> None:
    plot = ParetoFigure(summary)
    texts = {"".join(e.itertext()): e for e in ET.fromstring((drawn / "pareto.svg").read_text()).iter()}
    height = plot.figure.get_figheight() * 72
    for network in summary.references:
        x, y = plot.axes.transData.transform((network.latency_ms, network.top1 or 0)) / plot.figure.dpi * 72
        text = texts[network.name]
        assert abs(float(text.attrib["x"]) - x) + abs(float(text.attrib["y"]) - (height - y)) < 170, (
            "its width and some"
        )


def test_the_same_summary_gives_the_same_bytes(drawn: Path, summary: RunSummary, tmp_path: Path) -> None:
    ParetoFigure(summary).save(tmp_path / "a.png", tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_bytes() == (drawn / "pareto.svg").read_bytes()
    assert (tmp_path / "a.png").read_bytes() == (drawn / "pareto.png").read_bytes()


def test_published_top1_never_moves_a_mark(drawn: Path, summary: RunSummary, tmp_path: Path) -> None:
    absurd = replace(summary, references=[replace(j, published_top1=5.0) for j in summary.references])
    ParetoFigure(absurd).save(tmp_path / "a.png", tmp_path / "a.svg")
    assert (tmp_path / "a.svg").read_bytes() == (drawn / "pareto.svg").read_bytes()


def test_a_bare_run_is_drawn(summary: RunSummary, tmp_path: Path) -> None:
    best = replace(summary.best, top1_std=None, latency_error_ms=None, name="$\\bad{ <b>")
    bare = replace(
        summary, title="$x_{", best=best, references=[], finalists=[], candidates=[], front=[], seed=None, steps=[]
    )
    ParetoFigure(bare).save(tmp_path / "a.png", tmp_path / "a.svg")
    assert "±?" in _svg_text(tmp_path / "a.svg")


def test_a_run_without_top1_is_drawn(summary: RunSummary, tmp_path: Path) -> None:
    bare = replace(summary, best=replace(summary.best, top1=None), references=[], finalists=[])
    ParetoFigure(bare).save(tmp_path / "a.png", tmp_path / "a.svg")
    assert (tmp_path / "a.png").stat().st_size > 0


def test_what_cannot_be_written_is_one_error_and_leaves_nothing(summary: RunSummary, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="cannot write"):
        ParetoFigure(summary).save(tmp_path / "missing" / "a.png", tmp_path / "a.svg")
    assert list(tmp_path.iterdir()) == []


def test_comparison_draws_groups_and_names_what_it_leaves_out(summary: RunSummary, tmp_path: Path) -> None:
    x, y = "Latency on pixel1, ms (estimated)", "Predicted ImageNet top-1, %"
    unknown = replace(summary.references[0], name="no figures", top1=None)
    groups = {"runs/today": [summary.best, *summary.finalists], "published": [*summary.references, unknown]}
    missing = draw_comparison(
        groups, tmp_path / "c.png", tmp_path / "c.svg", x_label=x, y_label=y, title="one run",
        fronts={"runs/today": summary.front}, target_latency_ms=50.0,
    )  # fmt: skip
    assert missing == ["no figures"]
    text = _svg_text(tmp_path / "c.svg")
    assert all(
        words in text
        for words in (
            x,
            y,
            "runs/today",
            "runs/today: Pareto front",
            "published",
            "finalist 2",
            "mnasnet_a1",
            "target 50 ms",
        )
    )
    assert "no figures" not in text


def test_drawing_needs_no_display_and_no_pyplot(tmp_path: Path) -> None:
    code = (
        "import sys; import mnv3search.report.plots as f; assert 'matplotlib' not in sys.modules;"
        f"f.draw_comparison({{}}, __import__('pathlib').Path({str(tmp_path / 'a.png')!r}),"
        f" __import__('pathlib').Path({str(tmp_path / 'a.svg')!r}), x_label='x', y_label='y');"
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_thinning_keeps_the_front_and_the_limit(summary: RunSummary) -> None:
    front, rest = shown_candidates(summary.candidates, summary.front, limit=100)
    assert list(front) == list(summary.front)
    assert len(front) + len(rest) == 100
    assert not {c.architecture for c in front} & {c.architecture for c in rest}
    few, none = shown_candidates(summary.candidates, summary.front, limit=3)
    assert (len(few), none) == (3, ())
    assert few[0] == summary.front[0]
    assert few[-1] == summary.front[-1]


def test_the_picture_says_what_it_leaves_out(summary: RunSummary) -> None:
    assert MAX_SHOWN <= 2_000
    shown = pareto_plot(summary, limit=100)
    assert shown.candidates_label.startswith("400 networks evaluated (100 drawn")
    for network in (summary.best, *summary.references):
        assert shown.x[0] < network.latency_ms < shown.x[1]
        assert shown.y[0] < (network.top1 or 0) < shown.y[1]
