"""The accuracy tables as architectures: counts equal on every row, and the shipped prior ranks them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.prior_networks import other_networks
from benchmarks.row_data import AccuracyRow, anb_architecture, anb_rows, ofa_architecture, ofa_rows
from mnv3search.accuracy.prior import ImagenetPrior
from mnv3search.cost import count


def test_a_once_for_all_row_by_hand() -> None:
    network = ofa_architecture("3" * 20, "6" * 20, "22222")
    assert [block.out_channels for block in network.blocks] == [16, 24, 24, 40, 40, 80, 80, 112, 112, 160, 160]
    assert [block.expanded_channels for block in network.blocks][:4] == [16, 96, 144, 144]
    assert network == ofa_architecture("33773377337733773377", "66336633663366336633", "22222")


def test_an_accel_nasbench_row_by_hand() -> None:
    network = anb_architecture("1446666", "3355333", "1111111", "0010000")
    assert [block.expanded_channels for block in network.blocks] == [32, 64, 96, 240, 480, 672, 1152]
    assert [block.squeeze_excite is not None for block in network.blocks] == [False, False, True] + [False] * 4
    assert network.blocks[2].squeeze_excite is not None
    assert network.blocks[2].squeeze_excite.squeeze_channels == 6


def test_every_once_for_all_row_is_rebuilt_exactly(data_dir: Path) -> None:
    rows = ofa_rows(data_dir)
    counts = [count(row.architecture) for row in rows]
    assert [(c.parameters, c.madds) for c in counts] == [(row.parameters, row.madds) for row in rows]
    assert len({row.effective for row in rows}) == len({row.architecture for row in rows}) == 1590


def test_every_accel_nasbench_row_is_rebuilt_exactly(data_dir: Path) -> None:
    rows = anb_rows(data_dir)
    assert [count(row.architecture).parameters for row in rows] == [row.parameters for row in rows]
    assert all(row.madds > count(row.architecture).madds for row in rows)


def test_every_other_network_has_the_parameters_that_its_source_states(data_dir: Path) -> None:
    others = other_networks(data_dir)
    assert len(others) == 34
    assert {n.name: round(count(n.architecture).parameters / 1e6, 2) for n in others} == {
        n.name: n.parameters_m for n in others
    }


def _answers(rows: list[AccuracyRow], recipe: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predicted top-1, stated deviation and the table's top-1."""
    found = ImagenetPrior(recipe=recipe).evaluate([row.architecture for row in rows])
    return (
        np.array([answer.top1 for answer in found]), np.array([answer.top1_std for answer in found]),
        np.array([row.top1 for row in rows]),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("table", "step", "recipe", "tau"),
    [(ofa_rows, 5, "once_for_all", 0.92), (anb_rows, 10, "accel_nasbench", 0.86)],
)
def test_what_evaluate_answers_keeps_the_tables_order_and_a_recipe_their_figures(
    data_dir: Path, table: Callable[[Path], list[AccuracyRow]], step: int, recipe: str, tau: float
) -> None:
    from scipy.stats import kendalltau

    rows = table(data_dir)[::step]
    published, _, truth = _answers(rows, "published")
    assert float(kendalltau(published, truth)[0]) > tau
    predicted, std, _ = _answers(rows, recipe)
    error = np.abs(predicted - truth)
    assert abs((predicted - truth).mean()) < 0.1
    assert (error <= 2 * std).mean() > 0.9
    assert std.mean() < 2 * error.mean()  # and not by stating more than it errs
