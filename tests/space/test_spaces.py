"""The shipped spaces: what they contain, how many networks they hold, and the ways in and out."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mnv3search.architecture import Architecture
from mnv3search.cost import count
from mnv3search.errors import ArchitectureError, SpaceError, UnknownNameError
from mnv3search.families import published
from mnv3search.layers import units
from mnv3search.space import SearchSpace, load_space, space_names

NAMES = ("mnasnet", "mnasnet_anb", "mnv2", "mnv3_large", "mnv3_small", "mnv3_small_32", "ofa_mbv3")


@cache
def _space(name: str) -> SearchSpace:
    return load_space(name)


@pytest.fixture(params=NAMES)
def space(request: pytest.FixtureRequest) -> SearchSpace:
    return _space(request.param)


def test_the_names() -> None:
    assert space_names() == NAMES


@pytest.mark.parametrize(
    ("name", "size"),
    [
        # by hand: at 16 channels in, ratios 2.3 and 2.5 both give 40, so 5 of 6 ratios count: 5·3·2·2 = 60, else 72
        ("mnv3_large", 60 * (72 + 72**2 + 72**3) * (72**2 + 72**3 + 72**4) ** 4),
        ("mnv3_small", 2 * (60 + 60**2 + 60**3) ** 2 * (60**2 + 60**3 + 60**4) ** 2),
        ("mnv3_small_32", 2 * (60 + 60**2 + 60**3) ** 2 * (60**2 + 60**3 + 60**4) ** 2),
        ("mnv2", (3 + 9) * (9 + 81 + 729) * (81 + 729 + 6561) ** 3 * (729 + 6561 + 59049) * (9 + 81)),
        ("ofa_mbv3", (81 + 729 + 6561) ** 5),
        ("mnasnet_anb", (12 * 3) ** 6 * (12 * 4)),
    ],
)
def test_exact_sizes_by_hand(name: str, size: int) -> None:
    assert _space(name).size == size


@pytest.mark.parametrize(
    ("name", "network"),
    [
        ("mnv3_large", "mobilenet_v3_large"),
        ("mnv3_small", "mobilenet_v3_small"),
        ("mnv2", "mobilenet_v2"),
        ("mnasnet", "mnasnet_a1"),
        ("mnasnet", "mnasnet_b1"),
    ],
)
def test_contains_its_published_networks(name: str, network: str) -> None:
    space, architecture = _space(name), published(network)
    assert space.contains(architecture)
    assert space.decode(space.encode(architecture)) == architecture


@pytest.mark.parametrize(
    ("name", "reference", "device", "evaluator"),
    [
        ("mnv3_large", "mobilenet_v3_large", "pixel1", "prior"),
        ("mnv3_small", "mobilenet_v3_small", "pixel1", "prior"),
        ("mnv2", "mobilenet_v2", "pixel1", "prior"),
        ("mnasnet", "mnasnet_a1", "pixel1", "prior"),
        ("ofa_mbv3", "mobilenet_v3_large", "pixel1", "prior:once_for_all"),
        ("mnasnet_anb", "mnasnet_a1", "pixel1", "prior:accel_nasbench"),
    ],
)
def test_defaults(name: str, reference: str, device: str, evaluator: str) -> None:
    space = _space(name)
    assert (space.reference_name, space.device, space.evaluator) == (reference, device, evaluator)
    assert space.reference == published(reference)


def test_the_small_images_space_changes_its_reference() -> None:
    space = _space("mnv3_small_32")
    reference = space.reference
    assert (reference.resolution, reference.classes, reference.stem.stride) == (32, 10, 1)
    assert reference.blocks == published("mobilenet_v3_small").blocks
    assert space.contains(reference)
    assert (space.reference_name, space.device, space.evaluator) == (None, "host", None)
    assert space.reference_label == "mobilenet_v3_small (32 px, 10 classes, stem stride 1)"


def test_v3_small_may_lack_the_first_squeeze_excite() -> None:
    space = _space("mnv3_small")
    choices = space.encode(published("mobilenet_v3_small"))
    assert choices["stage1.block1.squeeze_excite"] is True
    without = space.decode({**choices, "stage1.block1.squeeze_excite": False})
    assert without.blocks[0].squeeze_excite is None
    assert without.blocks[1:] == published("mobilenet_v3_small").blocks[1:]


def test_encoding_v3_large_by_hand() -> None:
    choices = _space("mnv3_large").encode(published("mobilenet_v3_large"))
    third = {key: value for key, value in choices.items() if key.startswith("stage4.")}
    assert third["stage4.depth"] == 4
    ratios = [third[f"stage4.block{b}.expansion_ratio"] for b in (1, 2, 3, 4)]
    assert ratios == [6, 2.5, 2.3, 2.3]  # 40·6 = 240, 80·2.5 = 200, 80·2.3 = 184
    assert {third[f"stage4.block{b}.activation"] for b in (1, 2, 3, 4)} == {"hard_swish"}
    assert "stage2.block3.kernel_size" not in choices  # past the depth of 2


@given(name=st.sampled_from(NAMES), seed=st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_round_trips_of_samples(name: str, seed: int) -> None:
    space = _space(name)
    rows = space.sample_indices(3, np.random.default_rng(seed))
    assert (space.canonical(rows) == rows).all()
    for row, architecture in zip(rows, space.architectures(rows), strict=True):
        assert isinstance(architecture, Architecture)
        assert space.contains(architecture)
        assert (space.indices(architecture) == row).all()
        assert space.decode(space.encode(architecture)) == architecture


@given(name=st.sampled_from(NAMES), data=st.data())
@settings(max_examples=60)
def test_any_row_of_indices_is_a_network_and_has_one_canonical_row(name: str, data: st.DataObject) -> None:
    space = _space(name)
    row = np.array([[data.draw(st.integers(0, len(p.choices) - 1)) for p in space.parameters]])
    canonical = space.canonical(row)
    assert space.architecture(row[0]) == space.architecture(canonical[0])
    assert (space.indices(space.architecture(row[0])) == canonical[0]).all()
    assert tuple(canonical[0]) <= tuple(row[0])


@given(name=st.sampled_from(NAMES), seed=st.integers(0, 2**32 - 1), rate=st.floats(0, 1))
@settings(max_examples=40)
def test_mutation_and_crossover_stay_in_the_space(name: str, seed: int, rate: float) -> None:
    space, rng = _space(name), np.random.default_rng(seed)
    a, b = space.sample_indices(4, rng), space.sample_indices(4, rng)
    for rows in (space.mutate(a, rng, rate), space.crossover(a, b, rng)):
        assert rows.dtype == np.int16
        assert (space.canonical(rows) == rows).all()
        assert all(map(space.contains, space.architectures(rows)))


def test_mutation_at_its_limits(space: SearchSpace) -> None:
    rng = np.random.default_rng(3)
    rows = space.sample_indices(50, rng)
    assert (space.mutate(rows, rng, 0.0) == rows).all()
    changed = (space.mutate(rows, rng, 1.0) != rows).any(axis=1)
    assert changed.all()


def test_crossover_of_equal_parents_is_the_parent(space: SearchSpace) -> None:
    rng = np.random.default_rng(4)
    rows = space.sample_indices(50, rng)
    assert (space.crossover(rows, rows, rng) == rows).all()


def test_crossover_takes_every_used_choice_from_a_parent() -> None:
    space, rng = _space("ofa_mbv3"), np.random.default_rng(5)
    a, b = space.sample_indices(100, rng), space.sample_indices(100, rng)
    child = space.crossover(a, b, rng)
    columns = [i for i, p in enumerate(space.parameters) if p.name.endswith("depth")]
    assert ((child == a) | (child == b))[:, columns].all()
    mixed = (child != a).any(axis=1) & (child != b).any(axis=1)
    assert mixed.sum() > 90


def test_counts_of_a_population_equal_those_of_each_network(space: SearchSpace) -> None:
    rows = space.sample_indices(30, np.random.default_rng(1))
    batch = space.count_batch(rows)
    for i, architecture in enumerate(space.architectures(rows)):
        one = count(architecture)
        assert (one.madds, one.parameters, one.activations, one.peak_memory_bytes) == tuple(int(c[i]) for c in batch)


def test_every_unit_of_a_sample_is_among_the_units_of_the_space(space: SearchSpace) -> None:
    known = set(space.all_units())
    assert len(known) == len(space.all_units())
    for architecture in space.sample(20, seed=2):
        assert known.issuperset(units(architecture))


def test_extremes_bound_every_sample(space: SearchSpace) -> None:
    from mnv3search.cost import unit_cost

    priced = space.priced(lambda parts: np.array([unit_cost(part).madds for part in parts], dtype=np.float64))
    sums = priced.sums(space.sample_indices(2000, np.random.default_rng(6)))
    (fast, low), (slow, high) = priced.fastest(), priced.slowest()
    assert low <= sums.min()
    assert sums.max() <= high
    assert count(space.architecture(fast)).madds == low
    assert count(space.architecture(slow)).madds == high


def test_sampling_is_seeded(space: SearchSpace) -> None:
    assert space.sample(5, seed=9) == space.sample(5, seed=9)
    assert space.sample(5, seed=9) != space.sample(5, seed=10)


@pytest.mark.parametrize(("n", "seed", "named"), [(-3, 0, "n is -3"), ("3", 0, "n is '3'"), (3, -1, "seed is -1")])
def test_what_is_no_number_of_samples_is_refused(space: SearchSpace, n: Any, seed: int, named: str) -> None:
    with pytest.raises(SpaceError, match=f"{named}; it must be an integer of at least 0"):
        space.sample(n, seed)


def test_no_samples_are_no_rows(space: SearchSpace) -> None:
    rng = np.random.default_rng(0)
    rows = space.sample_indices(0, rng)
    assert rows.shape == (0, len(space.parameters))
    assert space.architectures(rows) == []
    assert len(space.mutate(rows, rng, 0.5)) == len(space.count_batch(rows).madds) == 0


def test_sampled_depths_follow_the_number_of_networks() -> None:
    rows = _space("ofa_mbv3").sample_indices(20_000, np.random.default_rng(7))
    column = [p.name for p in _space("ofa_mbv3").parameters].index("stage3.depth")
    shares = np.bincount(rows[:, column], minlength=3) / len(rows)
    truth = np.array([81, 729, 6561]) / 7371
    assert np.abs(shares - truth).max() < 5 * np.sqrt(0.25 / len(rows))


def test_a_large_space_is_not_enumerated() -> None:
    with pytest.raises(SpaceError, match=r"at most 1,000,000 are enumerated: sample it"):
        _space("mnv3_large").enumerate()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"stage2.block1.kernel_size": 4}, "stage2.block1.kernel_size is 4; it must be one of 3, 5, 7"),
        ({"stage2.block1.squeeze_excite": 1}, "stage2.block1.squeeze_excite is 1; it must be one of false, true"),
        ({"stage2.block1.expansion_ratio": float("nan")}, "stage2.block1.expansion_ratio is nan; it must be one of"),
    ],
)
def test_decode_refuses_what_is_no_choice(change: dict[str, object], message: str) -> None:
    space = _space("mnv3_large")
    with pytest.raises(SpaceError, match=re.escape(message)):
        space.decode({**space.encode(space.reference), **change})


def test_decode_names_the_nearest_parameter_and_what_is_missing() -> None:
    space = _space("mnv3_large")
    choices: dict[str, object] = dict(space.encode(space.reference))
    with pytest.raises(UnknownNameError, match=r"did you mean stage2\.depth"):
        space.decode({**choices, "stage2.deptj": 3})
    del choices["stage2.depth"]
    with pytest.raises(SpaceError, match=r"lack stage2\.depth"):
        space.decode(choices)


def test_outsiders_are_told_where_they_leave() -> None:
    space = _space("mnv3_large")
    with pytest.raises(SpaceError, match="its resolution is 192, the space's 224"):
        space.indices(published("mobilenet_v3_large", resolution=192))
    with pytest.raises(SpaceError, match="goes on from 12 blocks"):
        space.indices(published("mobilenet_v3_large_preprint"))
    assert not space.contains(published("mobilenet_v3_small"))


def test_rows_out_of_range_are_refused() -> None:
    space = _space("mnv2")
    row = np.zeros((1, len(space.parameters)), dtype=np.int64)
    row[0, 0] = 7
    with pytest.raises(SpaceError, match=r"index 7 of stage1\.depth is out of range; it has 2 choices"):
        space.canonical(row)
    with pytest.raises(SpaceError, match="are integers of shape"):
        space.canonical(row[:, 1:])
    with pytest.raises(SpaceError, match=r"mutation rate is 1\.5"):
        space.mutate(row * 0, np.random.default_rng(0), 1.5)


def test_spaces_are_values() -> None:
    assert load_space("mnv2") == load_space("mnv2")
    assert hash(load_space("mnv2")) == hash(_space("mnv2"))
    assert load_space("mnv2") != load_space("ofa_mbv3")


def test_what_matters_in_training_alone_is_no_choice() -> None:
    space = load_space("ofa_mbv3")
    one = space.sample(1, 0)[0]
    by_hand = replace(one, norm_momentum=0.3, head=replace(one.head, dropout=0.0, linear_std=0.02))
    assert space.contains(by_hand)
    assert space.encode(by_hand) == space.encode(one)
    assert not space.contains(replace(one, head=replace(one.head, hidden_channels=640)))


@pytest.mark.parametrize("method", ["contains", "encode", "indices"])
def test_a_list_where_one_architecture_is_taken(method: str) -> None:
    space = load_space("mnv3_small")
    with pytest.raises(ArchitectureError, match="one architecture is taken, not list"):
        getattr(space, method)([space.reference])
