"""Spaces small enough to go through whole: sizes, canonical rows, draws and extremes against brute force."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from functools import cache
from itertools import product

import numpy as np
import pytest
from numpy.typing import NDArray

from mnv3search.architecture import Architecture
from mnv3search.errors import SpaceError
from mnv3search.layers import Unit, units
from mnv3search.space import SearchSpace, parse_space

HEAD = "format: mnv3search.space/1\nresolution: 32\nstem: {out_channels: 16}\nhead: {feature_channels: null}\nstages:\n"
SPACES = {
    # at 16 channels 2.3 and 2.5 both expand to 40; at 24 to 56 and 64
    "rounding": "- {out_channels: 24, stride: 2, depth: [1, 2], block: {kernel_size: [3, 5], "
    "expansion_ratio: [2.3, 2.5]}}\n",
    "stage choices": "- {out_channels: [24, 32], depth: [1, 2], choices: stage, block: {kernel_size: [3, 5], "
    "expansion_ratio: [2.3, 2.5, 4]}}\n",
    "joining stages": "- {out_channels: [16, 24], depth: [1, 2], block: {kernel_size: [3, 5], expansion_ratio: 2}}\n"
    "- {out_channels: [24, 32], depth: [2, 1], block: {kernel_size: [3, 5], expansion_ratio: 2}}\n",
    "joining stage choices": "- {out_channels: [16, 24], depth: [1, 2, 3], choices: stage, block: {kernel_size: [3, 5],"
    " expansion_ratio: 2}}\n"
    "- {out_channels: [24, 16], depth: [1, 2], choices: stage, block: {kernel_size: [5, 3], expansion_ratio: 2}}\n",
    "skip": "- {out_channels: 24, stride: 2, depth: 3, block: {options: [{kernel_size: 3, expansion_ratio: 2}, skip, "
    "{kernel_size: 5, expansion_ratio: 2}]}}\n"
    "- {out_channels: 32, stride: 1, depth: [1, 2], block: {kernel_size: 3, expansion_ratio: [1, 3]}}\n",
    "skip across stages": "- {out_channels: 16, depth: 2, block: {options: [skip, {kernel_size: 3, "
    "expansion_ratio: 2}]}}\n"
    "- {out_channels: 16, depth: 2, block: {options: [{kernel_size: 3, expansion_ratio: 2}, skip, "
    "{kernel_size: 5, expansion_ratio: 2}]}}\n"
    "- {out_channels: 24, depth: 1, block: {kernel_size: [3, 5], expansion_ratio: 2}}\n",
    # 9 numbers of equal blocks, made by 2^8 rows
    "few networks of many rows": "- {out_channels: 16, depth: 4, block: &any {options: [skip, {kernel_size: 3, "
    "expansion_ratio: 2}]}}\n"
    "- {out_channels: 16, depth: 4, block: *any}\n"
    "- {out_channels: 24, stride: 2, block: {kernel_size: [3, 5], expansion_ratio: 2}}\n",
    # the ratios are one behind 16 channels, two behind 24
    "rounding by the width before": "- {out_channels: [16, 24], stride: 2, block: {kernel_size: 3, "
    "expansion_ratio: 2}}\n"
    "- {out_channels: 32, stride: 2, block: {kernel_size: 3, expansion_ratio: [2.3, 2.5]}}\n",
    "lists alone": "- {out_channels: 24, stride: 2, depth: [1, 2], block: {kernel_size: [3, 5, 7, 9], "
    "expansion_ratio: [2, 4, 6]}}\n",
}


@cache
def _space(name: str) -> SearchSpace:
    return parse_space(HEAD + SPACES[name], name)


@pytest.fixture(params=SPACES)
def space(request: pytest.FixtureRequest) -> SearchSpace:
    return _space(request.param)


def _all_rows(space: SearchSpace) -> NDArray[np.int64]:
    """Every combination of indices in lexicographic order."""
    return np.array(list(product(*(range(len(p.choices)) for p in space.parameters))))


def test_sizes_by_hand() -> None:
    assert _space("rounding").size == 2 + 2 * 4  # one ratio in the first block, two in the second
    # depth 1: 2 kernels × 2 ratios; depth 2: × 3, of both widths
    assert _space("stage choices").size == 2 * (2 * 2 + 2 * 3)
    # 3 blocks of 24 or fewer: widths 16,24: 2+4 by 2+4; 16,32 and 24,32 as many; 24 throughout: 2 to 4 blocks
    assert _space("joining stages").size == 3 * 36 + (4 + 8 + 16)
    assert _space("few networks of many rows").size == 9 * 2
    assert _space("rounding by the width before").size == 1 + 2


def test_size_is_the_number_of_distinct_architectures(space: SearchSpace) -> None:
    assert space.size == len(set(space.architectures(_all_rows(space))))


def test_enumeration_gives_each_network_once(space: SearchSpace) -> None:
    found = list(space.enumerate())
    assert len(found) == space.size
    assert set(found) == set(space.architectures(_all_rows(space)))


def test_the_canonical_row_is_the_first_of_those_that_make_a_network(space: SearchSpace) -> None:
    rows = _all_rows(space)
    first: dict[Architecture, tuple[int, ...]] = {}
    for row, architecture in zip(rows.tolist(), space.architectures(rows), strict=True):
        first.setdefault(architecture, tuple(row))
    for row, architecture in zip(space.canonical(rows).tolist(), space.architectures(rows), strict=True):
        assert tuple(row) == first[architecture]
    assert all(tuple(space.indices(a).tolist()) == row for a, row in first.items())


def test_round_trips_of_every_network(space: SearchSpace) -> None:
    for architecture in space.enumerate():
        assert space.decode(space.encode(architecture)) == architecture


def test_draws_are_uniform_over_networks(space: SearchSpace) -> None:
    n = 80 * space.size
    rows = space.sample_indices(n, np.random.default_rng(0))
    seen = Counter(map(tuple, rows.tolist()))
    assert len(seen) == space.size
    assert max(abs(count - 80) for count in seen.values()) < 5 * np.sqrt(80)


def test_the_automatons_own_draws_are_uniform() -> None:
    space = _space("skip across stages")
    assert space._automaton is not None
    rows = space._sampled_by_automaton(space._automaton, 80 * space.size, np.random.default_rng(1))
    seen = Counter(map(tuple, rows.tolist()))
    assert len(seen) == space.size
    assert max(abs(count - 80) for count in seen.values()) < 5 * np.sqrt(80)


def test_one_draw_may_be_any_network(space: SearchSpace) -> None:
    drawn = [tuple(space.sample_indices(1, np.random.default_rng(seed))[0].tolist()) for seed in range(12)]
    assert max(Counter(drawn).values()) < 12


def _shares(values: NDArray[np.integer], choices: int) -> list[float]:
    return [float((values == choice).mean()) for choice in range(choices)]


def _columns(space: SearchSpace) -> dict[str, int]:
    return {p.name: column for column, p in enumerate(space.parameters)}


def test_a_mutation_takes_each_other_choice_alike() -> None:
    space = _space("lists alone")
    column = _columns(space)
    row = space.indices(
        space.decode({"stage1.depth": 1, "stage1.block1.kernel_size": 5, "stage1.block1.expansion_ratio": 6})
    )
    rows = np.tile(row, (6000, 1))
    mutated = space.mutate(rows, np.random.default_rng(0), 1.0)
    assert _shares(mutated[:, column["stage1.depth"]], 2) == [0, 1]
    third = 1 / 3
    for name, truth in (("kernel_size", [third, 0, third, third]), ("expansion_ratio", [0.5, 0.5, 0])):
        found = _shares(mutated[:, column[f"stage1.block1.{name}"]], len(truth))
        assert found == pytest.approx(truth, abs=0.03), name
    some = space.mutate(rows, np.random.default_rng(1), 0.2)
    for name in ("stage1.depth", "stage1.block1.kernel_size", "stage1.block1.expansion_ratio"):
        assert (some[:, column[name]] != row[column[name]]).mean() == pytest.approx(0.2, abs=0.03)


def test_a_block_that_a_mutation_brings_in_is_drawn_from_all_choices() -> None:
    space = _space("lists alone")
    column = _columns(space)
    row = space.indices(
        space.decode({"stage1.depth": 1, "stage1.block1.kernel_size": 3, "stage1.block1.expansion_ratio": 2})
    )
    mutated = space.mutate(np.tile(row, (6000, 1)), np.random.default_rng(2), 1.0)
    assert _shares(mutated[:, column["stage1.block2.kernel_size"]], 4) == pytest.approx([0.25] * 4, abs=0.03)
    assert _shares(mutated[:, column["stage1.block2.expansion_ratio"]], 3) == pytest.approx([1 / 3] * 3, abs=0.03)


def test_a_child_has_the_block_of_the_parent_that_has_one() -> None:
    space = _space("lists alone")
    column = _columns(space)
    first = {"stage1.block1.kernel_size": 3, "stage1.block1.expansion_ratio": 2}
    second = {"stage1.block2.kernel_size": 9, "stage1.block2.expansion_ratio": 4}
    short = space.indices(space.decode({"stage1.depth": 1, **first}))
    long = space.indices(space.decode({"stage1.depth": 2, **first, **second}))
    for a, b in ((short, long), (long, short)):
        child = space.crossover(np.tile(a, (2000, 1)), np.tile(b, (2000, 1)), np.random.default_rng(3))
        deep = child[child[:, column["stage1.depth"]] == long[column["stage1.depth"]]]
        assert len(deep) / len(child) == pytest.approx(0.5, abs=0.05)
        assert (deep == long).all()
    with pytest.raises(SpaceError, match="as many rows on both sides, not 1 and 2"):
        space.crossover(np.tile(short, (1, 1)), np.tile(long, (2, 1)), np.random.default_rng(3))


def test_what_decode_lacks_is_counted() -> None:
    space = _space("lists alone")
    names = "stage1.block1.kernel_size, stage1.block1.expansion_ratio, stage1.block2.kernel_size"
    with pytest.raises(SpaceError, match=f"choices for space lists alone lack {names} and 1 more$"):
        space.decode({"stage1.depth": 2})
    with pytest.raises(SpaceError, match=r"lack stage1.block1.kernel_size, stage1.block1.expansion_ratio$"):
        space.decode({"stage1.depth": 1})


def test_an_outsider_leaves_where_the_last_network_of_the_space_does() -> None:
    space = _space("joining stages")
    longest = max(space.enumerate(), key=lambda a: len(a.blocks))
    assert len(longest.blocks) == 4
    beyond = replace(longest, blocks=(*longest.blocks[:3], replace(longest.blocks[3], kernel_size=7)))
    with pytest.raises(SpaceError, match=r"^the network is not in space joining stages: .* from 3 blocks with k7"):
        space.indices(beyond)
    other = replace(longest, blocks=(replace(longest.blocks[0], kernel_size=7),))
    with pytest.raises(SpaceError, match="goes on from 0 blocks with k7"):
        space.indices(other)


@pytest.mark.parametrize("seed", range(5))
def test_extremes_equal_brute_force(space: SearchSpace, seed: int) -> None:
    rng = np.random.default_rng(seed)
    prices = dict(zip(space.all_units(), rng.normal(1.0, 2.0, len(space.all_units())), strict=True))

    def price(parts: tuple[Unit, ...]) -> NDArray[np.float64]:
        return np.array([prices[part] for part in parts])

    priced = space.priced(price)  # type: ignore[arg-type]
    sums = {a: sum(prices[unit] for unit in units(a)) for a in space.enumerate()}
    for (row, value), truth in ((priced.fastest(), min(sums.values())), (priced.slowest(), max(sums.values()))):
        assert value == pytest.approx(truth, rel=1e-12)
        assert sums[space.architecture(row)] == pytest.approx(truth, rel=1e-12)
        assert (space.canonical(row.reshape(1, -1))[0] == row).all()


def test_sums_are_those_of_the_units(space: SearchSpace) -> None:
    prices = {unit: float(i) for i, unit in enumerate(space.all_units())}
    priced = space.priced(lambda parts: np.array([prices[part] for part in parts]))
    rows = _all_rows(space)
    truth = [sum(prices[unit] for unit in units(a)) for a in space.architectures(rows)]
    assert priced.sums(rows).tolist() == truth
    assert priced.prices.tolist() == list(prices.values())


def test_prices_are_checked() -> None:
    space = _space("rounding")
    with pytest.raises(SpaceError, match=r"an array of shape \(2,\)"):
        space.priced(lambda parts: np.zeros(2))
    with pytest.raises(SpaceError, match="gave nan, which is not finite"):
        space.priced(lambda parts: np.full(len(parts), np.nan))


def test_a_left_out_block_takes_no_time_and_no_place() -> None:
    space = _space("skip")
    names = {p.name: p.choices for p in space.parameters}
    assert names["stage1.block1.option"] == ("k3_e2_relu", "k5_e2_relu")  # the stride keeps it
    assert names["stage1.block2.option"] == ("k3_e2_relu", "skip", "k5_e2_relu")
    made = space.decode(
        {
            "stage1.block1.option": "k5_e2_relu",
            "stage1.block2.option": "skip",
            "stage1.block3.option": "k3_e2_relu",
            "stage2.depth": 1,
            "stage2.block1.expansion_ratio": 3,
        }
    )
    assert [b.kernel_size for b in made.blocks] == [5, 3, 3]
    assert space.encode(made)["stage1.block3.option"] == "skip"


def test_a_ratio_of_one_keeps_an_odd_width() -> None:
    text = HEAD.replace("16", "20") + "- {out_channels: 24, block: {kernel_size: [3, 5], expansion_ratio: [1, 1.3]}}\n"
    space = parse_space(text, "odd")
    assert {b.blocks[0].expanded_channels for b in space.enumerate()} == {20, 24}  # 20·1.3 = 26, rounded to 24


def test_the_squeeze_excite_rule_is_settable() -> None:
    rule = (
        "squeeze_excite: {ratio: 0.5, relative_to: input, divisor: 1, gate: sigmoid, activation: swish, bias: false}\n"
    )
    text = HEAD.replace("stages:", rule + "stages:")
    text += "- {out_channels: 24, block: {kernel_size: [3, 5], expansion_ratio: 4, squeeze_excite: true}}\n"
    se = parse_space(text, "rule").reference.blocks[0].squeeze_excite
    assert se is not None
    assert (se.squeeze_channels, se.gate, se.activation, se.use_bias) == (8, "sigmoid", "swish", False)


def test_without_a_reference_the_first_choices_are_it() -> None:
    space = _space("rounding")
    assert space.reference == space.architecture(np.zeros(len(space.parameters), dtype=np.int16))
    assert (space.reference_name, space.reference_label) == (None, "first choices")
