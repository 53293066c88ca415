"""Results in a notebook: tables and plots of one's own."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt

import mnv3search
from mnv3search.block_search import SearchResult
from mnv3search.candidate import Candidates


@pytest.fixture(scope="module")
def result() -> SearchResult:
    space = mnv3search.load_space("mnv3_small")
    return mnv3search.search(
        space,
        mnv3search.load_device("pixel1"),
        mnv3search.ImagenetPrior(),
        target_latency_ms=14.0,
        trials=60,
        sampler="random",
    )


def test_candidates_are_a_frame(result: SearchResult) -> None:
    frame = result.to_frame()
    assert frame.columns.tolist() == [
        "number", "top1", "top1_std", "latency_ms", "madds", "parameters", "origin", "blocks", "architecture",
    ]  # fmt: skip
    assert len(frame) == 60
    best = frame.loc[frame["number"] == result.best.number].iloc[0]
    assert (best["top1"], best["architecture"]) == (result.best.top1, result.best.architecture)
    assert frame["latency_ms"].max() <= 14.0
    front = result.front.to_frame()
    assert front["latency_ms"].is_monotonic_increasing
    assert front["top1"].is_monotonic_increasing
    pd.testing.assert_frame_equal(front, result.pareto_front.to_frame())


def test_what_is_no_result_is_not_drawn(result: SearchResult) -> None:
    with pytest.raises(mnv3search.Mnv3SearchError, match="not a SearchResult; give what search gives"):
        mnv3search.plot_pareto(result.best)  # type: ignore[arg-type]


def test_a_result_shows_itself(result: SearchResult) -> None:
    html = result._repr_html_()
    assert html.count("<tr") == min(len(result.front), 20) + 1
    assert f"number {result.best.number}" in html
    assert f"best {result.best.top1:.2f}" in repr(result)
    assert len(repr(result).splitlines()) <= 24
    assert repr(Candidates()) == "no networks"
    assert "<table" in Candidates()._repr_html_()


def test_a_frame_shows_its_architectures(result: SearchResult) -> None:
    assert "224px s16" in repr(result.front.to_frame()["architecture"])


def test_the_front_on_given_or_new_axes(result: SearchResult) -> None:
    _, given = plt.subplots()
    for axes in (mnv3search.plot_pareto(result, ax=given), mnv3search.plot_pareto(result)):
        dots, (front, best) = np.asarray(axes.collections[0].get_offsets()), axes.lines[:2]
        assert dots.shape == (60, 2)
        assert np.asarray(front.get_xydata()).shape == (len(result.front), 2)
        assert np.asarray(best.get_xydata()).tolist() == [[result.best.latency_ms, result.best.top1]]
        assert axes.get_legend_handles_labels()[1] == ["candidates", "Pareto front", "best"]
    plt.close("all")
