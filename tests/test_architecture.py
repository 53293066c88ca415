"""Architectures are values: equal by content, hashable, checked; and which of their widths hang together."""

from __future__ import annotations

import math
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from dataclasses import FrozenInstanceError, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnv3search import ImagenetPrior, build_network, count, load_device, load_evaluator, pareto_front, published
from mnv3search.architecture import Architecture, HeadSpec, StemSpec, out_size
from mnv3search.blocks import BlockSpec, SqueezeExciteSpec, make_divisible
from mnv3search.errors import ArchitectureError, NotAListError
from mnv3search.families import parse_network
from mnv3search.layers import residual_groups
from strategies import architectures

TINY = Architecture(StemSpec(8), (BlockSpec(3, 16, 8),), HeadSpec(16))
NOT_A_COUNT = [0, -1, math.nan, math.inf, 1.5, 8.0, "8", True, None, 10**9, []]


@given(st.floats(0.1, 5000), st.sampled_from((1, 2, 4, 8, 16)))
def test_make_divisible_rounds_to_the_nearest_multiple_but_never_below_90_percent(value: float, divisor: int) -> None:
    rounded = make_divisible(value, divisor)
    assert rounded % divisor == 0
    assert rounded >= divisor
    assert rounded >= 0.9 * value
    assert rounded - value <= max(divisor, 1.5 * divisor - 0.1 * value)


@pytest.mark.parametrize(("value", "rounded"), [(1, 8), (11, 16), (12, 16), (17, 16), (18, 24), (28, 32), (51.2, 48)])
def test_make_divisible_by_hand(value: float, rounded: int) -> None:
    """11 → 8 would be 73 % and 18 → 16 would be 89 %, so both go up; 17 → 16 is 94 %, 12 and 28 lie halfway."""
    assert make_divisible(value) == rounded


@given(architectures())
def test_equal_content_is_one_value(architecture: Architecture) -> None:
    twin = replace(architecture, stem=replace(architecture.stem), blocks=tuple(map(replace, architecture.blocks)))
    assert twin == architecture
    assert hash(twin) == hash(architecture)
    assert str(twin) == str(architecture)
    assert len({twin, architecture}) == 1


@given(architectures(), st.data())
def test_any_changed_field_makes_another_value(architecture: Architecture, data: st.DataObject) -> None:
    changes: dict[str, Any] = {
        "resolution": architecture.resolution + 1,
        "classes": architecture.classes + 1,
        "padding": "same" if architecture.padding == "symmetric" else "symmetric",
        "conv_bias": not architecture.conv_bias,
        "norm_eps": architecture.norm_eps / 2,
        "norm_momentum": architecture.norm_momentum / 2,
        "head": replace(architecture.head, dropout=0.5),
    }
    name = data.draw(st.sampled_from(sorted(changes)))
    assert replace(architecture, **{name: changes[name]}) != architecture


def test_values_are_frozen() -> None:
    with pytest.raises(FrozenInstanceError):
        TINY.resolution = 1  # type: ignore[misc]


@pytest.mark.parametrize("value", NOT_A_COUNT)
@pytest.mark.parametrize(
    ("make", "owner"),
    [
        (StemSpec, "StemSpec.out_channels"),
        (lambda v: StemSpec(8, kernel_size=v), "StemSpec.kernel_size"),
        (lambda v: StemSpec(8, stride=v), "StemSpec.stride"),
        (lambda v: BlockSpec(v, 16, 8), "BlockSpec.kernel_size"),
        (lambda v: BlockSpec(3, v, 8), "BlockSpec.expanded_channels"),
        (lambda v: BlockSpec(3, 16, v), "BlockSpec.out_channels"),
        (lambda v: BlockSpec(3, 16, 8, v), "BlockSpec.stride"),
        (SqueezeExciteSpec, "SqueezeExciteSpec.squeeze_channels"),
        (lambda v: SqueezeExciteSpec(8, divisor=v), "SqueezeExciteSpec.divisor"),
        (lambda v: replace(TINY, resolution=v), "Architecture.resolution"),
        (lambda v: replace(TINY, classes=v), "Architecture.classes"),
    ],
)
def test_a_count_is_a_whole_number_in_range(make: Any, owner: str, value: object) -> None:
    with pytest.raises(ArchitectureError, match=owner) as error:
        make(value)
    assert "must be an integer from" in str(error.value)


@pytest.mark.parametrize("value", [v for v in NOT_A_COUNT if v is not None])
def test_head_widths_are_counts_or_none(value: Any) -> None:
    with pytest.raises(ArchitectureError, match=r"HeadSpec\.feature_channels"):
        HeadSpec(value)
    with pytest.raises(ArchitectureError, match=r"HeadSpec\.hidden_channels"):
        HeadSpec(8, value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -0.1, "0.1", True, None])
def test_numbers_are_finite_and_in_range(value: Any) -> None:
    for make in (
        lambda v: HeadSpec(8, dropout=v),
        lambda v: HeadSpec(8, linear_std=v),
        lambda v: SqueezeExciteSpec(8, ratio=v),
        lambda v: replace(TINY, norm_eps=v),
        lambda v: replace(TINY, norm_momentum=v),
    ):
        with pytest.raises(ArchitectureError, match="must be a number from"):
            make(value)


@pytest.mark.parametrize("value", [0, 1, "no", None, math.nan])
def test_switches_are_true_or_false(value: Any) -> None:
    for make in (
        lambda v: SqueezeExciteSpec(8, use_norm=v),
        lambda v: SqueezeExciteSpec(8, use_bias=v),
        lambda v: BlockSpec(3, 16, 8, linear_bottleneck=v),
        lambda v: HeadSpec(8, hidden_norm=v),
        lambda v: HeadSpec(8, hidden_bias=v),
        lambda v: replace(TINY, conv_bias=v),
    ):
        with pytest.raises(ArchitectureError, match="must be true or false"):
            make(value)


@pytest.mark.parametrize("kernel_size", [2, 4, 30])
def test_kernels_are_odd(kernel_size: int) -> None:
    with pytest.raises(ArchitectureError, match="must be odd"):
        BlockSpec(kernel_size, 16, 8)
    with pytest.raises(ArchitectureError, match="must be odd"):
        StemSpec(8, kernel_size)


@pytest.mark.parametrize("value", ["gelu", "", "RELU", None, 3, ["relu"]])
def test_names_are_those_listed(value: Any) -> None:
    for make in (
        lambda v: StemSpec(8, activation=v),
        lambda v: BlockSpec(3, 16, 8, activation=v),
        lambda v: BlockSpec(3, 16, 8, expansion=v),
        lambda v: BlockSpec(3, 16, 8, shortcut=v),
        lambda v: HeadSpec(8, activation=v),
        lambda v: SqueezeExciteSpec(8, activation=v),
        lambda v: SqueezeExciteSpec(8, gate=v),
        lambda v: SqueezeExciteSpec(8, position=v),
        lambda v: SqueezeExciteSpec(8, relative_to=v),
        lambda v: replace(TINY, padding=v),
    ):
        with pytest.raises(ArchitectureError, match="must be one of"):
            make(value)


def test_parts_are_specs() -> None:
    block = BlockSpec(3, 16, 8)
    for changes, name in (
        ({"stem": 16}, "stem"),
        ({"head": None}, "head"),
        ({"blocks": [block]}, "blocks"),
        ({"blocks": (block, "k3e16c8")}, r"blocks\[1\]"),
    ):
        with pytest.raises(ArchitectureError, match=rf"Architecture\.{name} is .* must be a "):
            replace(TINY, **changes)
    with pytest.raises(ArchitectureError, match="must be a SqueezeExciteSpec"):
        BlockSpec(3, 16, 8, squeeze_excite=8)  # type: ignore[arg-type]
    with pytest.raises(ArchitectureError, match="must be a SqueezeExciteSpec"):
        HeadSpec(8, squeeze_excite=True)  # type: ignore[arg-type]


def test_parts_that_do_not_fit_one_another() -> None:
    with pytest.raises(ArchitectureError, match="1 to 512 blocks, not 0"):
        replace(TINY, blocks=())
    with pytest.raises(ArchitectureError, match=r"block 0 multiplies 8 channels to 12 .* must be a multiple"):
        replace(TINY, blocks=(BlockSpec(3, 12, 8, expansion="depthwise"),))
    with pytest.raises(ArchitectureError, match="needs feature_channels"):
        HeadSpec(None, squeeze_excite=SqueezeExciteSpec(8))


@given(architectures())
def test_residual_groups_partition_the_blocks_into_runs(architecture: Architecture) -> None:
    groups = residual_groups(architecture)
    assert [index for group in groups for index in group] == list(range(-1, len(architecture.blocks)))


@given(architectures())
def test_a_residual_group_has_one_width_and_each_later_member_adds_to_it(architecture: Architecture) -> None:
    widths = {-1: architecture.stem.out_channels} | {i: b.out_channels for i, b in enumerate(architecture.blocks)}
    for group in residual_groups(architecture):
        assert len({widths[index] for index in group}) == 1
        for index in group[1:]:
            assert architecture.blocks[index].stride == 1
            assert architecture.blocks[index].shortcut != "none"


def test_residual_groups_of_v3_small() -> None:
    """Widths 16 (stem), 16 s2, 24 24, 40 40 40, 48 48, 96 96 96."""
    groups = residual_groups(parse_network("mobilenet_v3_small"))
    assert groups == ((-1,), (0,), (1, 2), (3, 4, 5), (6, 7), (8, 9, 10))


def test_residual_groups_of_v3_large_start_at_the_stem() -> None:
    """The first block keeps the stem's 16 channels at stride 1, so it adds the stem's output."""
    groups = residual_groups(parse_network("mobilenet_v3_large"))
    assert groups == ((-1, 0), (1, 2), (3, 4, 5), (6, 7, 8, 9), (10, 11), (12, 13, 14))


def test_a_projected_shortcut_starts_a_group() -> None:
    blocks = tuple(BlockSpec(3, 16, out, shortcut="projected") for out in (8, 12, 12))
    assert residual_groups(replace(TINY, blocks=blocks)) == ((-1, 0), (1, 2))


def test_squeeze_excite_follows_the_width_that_it_is_relative_to() -> None:
    """In 10, expanded 50, out 30: a quarter is 2.5, 12.5, 7.5; truncated 2, 12, 7; rounded to 8: 8, 16, 8."""
    found = {
        (relative, divisor): SqueezeExciteSpec(1, relative_to=relative, divisor=divisor)
        .following(10, 50, 30)
        .squeeze_channels
        for relative in ("input", "expanded", "output")
        for divisor in (1, 8)
    }
    assert found == {
        ("input", 1): 2, ("expanded", 1): 12, ("output", 1): 7, ("input", 8): 8, ("expanded", 8): 16, ("output", 8): 8
    }  # fmt: skip


@given(st.integers(1, 4096), st.integers(1, 4), st.sampled_from((1, 3, 5, 7)))
def test_out_size_is_that_of_both_paddings(size: int, stride: int, kernel: int) -> None:
    """torch: ⌊(size + 2·(k // 2) − k) / stride⌋ + 1; TensorFlow: ⌈size / stride⌉."""
    assert out_size(size, stride) == (size + 2 * (kernel // 2) - kernel) // stride + 1 == -(-size // stride)


def test_the_display_string_is_one_short_line() -> None:
    text = str(parse_network("mobilenet_v3_small"))
    assert text.startswith("224px s16 | k3e16c16s2+ k3e72c24s2 k3e88c24 k5e96c40s2+~ ")
    assert text.endswith(" k5e576c96+~ | f576 h1024")


def test_one_architecture_where_a_list_is_taken_is_told_in_words() -> None:
    one = published("mobilenet_v3_small")
    asked: tuple[Any, ...] = (
        ImagenetPrior().evaluate,
        load_device("pixel1").latency_ms,
        pareto_front,
        load_evaluator("zero_cost:madds").evaluate,
    )
    for ask in asked:
        with pytest.raises(NotAListError, match=r"write \[architecture\]"):
            ask(one)


@pytest.mark.parametrize("take", [count, build_network])
@pytest.mark.parametrize("given", [["mobilenet_v2"], "mobilenet_v2", None])
def test_something_else_where_one_architecture_is_taken(take: Callable[[object], object], given: object) -> None:
    with pytest.raises(ArchitectureError, match="one architecture is taken, not"):
        take(given)


@pytest.mark.parametrize("seed", ["0", "1"])
def test_an_architecture_from_another_process_is_found_in_a_dict(seed: str) -> None:
    program = (
        "import pickle, sys\nfrom mnv3search.families import parse_network\n"
        "network = parse_network('mobilenet_v3_small')\nhash(network)\nsys.stdout.buffer.write(pickle.dumps(network))"
    )
    environment = {**os.environ, "PYTHONHASHSEED": seed}
    sent = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, check=True).stdout
    own = parse_network("mobilenet_v3_small")
    known = {own: "here"}
    received = pickle.loads(sent)
    assert known[received] == "here"
    assert hash(received) == hash(own) == hash(pickle.loads(pickle.dumps(own)))
