"""The accuracy tables as architectures: counts equal on every row, and the shipped prior ranks them."""

from __future__ import annotations

from pathlib import Path

from benchmarks.row_data import AccuracyRow, anb_architecture, anb_rows, ofa_architecture, ofa_rows
from mnv3search.accuracy.prior import ImagenetPrior
from mnv3search.cost.counts import count


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


def _tau(rows: list[AccuracyRow]) -> float:
    from scipy.stats import kendalltau

    answers = ImagenetPrior().evaluate([row.architecture for row in rows])
    return float(kendalltau([answer.top1 for answer in answers], [row.top1 for row in rows])[0])


def test_on_the_papers_scale_the_tables_keep_most_of_their_order(data_dir: Path) -> None:
    assert _tau(ofa_rows(data_dir)[::5]) > 0.8
    assert _tau(anb_rows(data_dir)[::10]) > 0.65
