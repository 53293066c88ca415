"""The shipped prior: its answers near the papers', its uncertainty, its smoothness, its file."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings

from mnv3search.accuracy.prior import PRIOR_FILE, ImagenetPrior
from mnv3search.accuracy.registry import load_evaluator
from mnv3search.architecture import Architecture
from mnv3search.blocks import SqueezeExciteSpec, make_divisible
from mnv3search.errors import EvaluatorError, UnknownNameError
from mnv3search.families import parse_network
from mnv3search.layer_search import narrow, sites
from mnv3search.space import load_space
from strategies import architectures

SHIPPED = files("mnv3search.accuracy") / PRIOR_FILE
SEEDS = ("mobilenet_v3_large", "mobilenet_v3_small", "mobilenet_v2", "mnasnet_a1")


def top1(*architectures: Architecture) -> np.ndarray:
    return np.array([answer.top1 for answer in ImagenetPrior().evaluate(architectures)])


def std(*networks: str) -> list[float]:
    answers = ImagenetPrior().evaluate([parse_network(network) for network in networks])
    return [answer.top1_std or 0.0 for answer in answers]


@pytest.mark.parametrize(
    ("network", "published_top1"),
    [
        ("mobilenet_v3_large", 75.2), ("mobilenet_v3_small", 67.4), ("mobilenet_v2", 72.0), ("mnasnet_a1", 75.2),
        ("mobilenet_v3_large@0.75", 73.3), ("mobilenet_v3_large/160", 71.7), ("mobilenet_v2@0.5/128", 57.7),
        ("mobilenet_v3_large_minimalistic", 72.3),
    ],
)  # fmt: skip
def test_published_networks_come_out_near_their_figures(network: str, published_top1: float) -> None:
    (answer,) = ImagenetPrior().evaluate([parse_network(network)])
    assert answer.top1 == pytest.approx(published_top1, abs=0.6)
    assert answer.top1_std is not None
    assert abs(answer.top1 - published_top1) < 2 * answer.top1_std


@pytest.mark.parametrize(
    ("variant", "difference"),
    [("mobilenet_v3_large_relu", -0.7), ("mobilenet_v3_large_hswish16", 0.2), ("mobilenet_v3_large_hswish112", -0.2)],
)
def test_activations_do_what_table_5_says(variant: str, difference: float) -> None:
    large, other = top1(parse_network("mobilenet_v3_large"), parse_network(variant))
    assert other - large == pytest.approx(difference, abs=0.2)
    assert math.copysign(1, other - large) == math.copysign(1, difference)


def test_the_deviation_is_at_least_an_activation_s_effect() -> None:
    assert min(std("mobilenet_v3_large_hswish16", "mobilenet_v3_large_hswish112")) > 0.2
    relu = parse_network("mobilenet_v3_large_reduced_tail").map_blocks(lambda b: replace(b, activation="relu"))
    assert (ImagenetPrior().evaluate([relu])[0].top1_std or 0) > 0.7


def test_the_deviation_grows_away_from_the_data() -> None:
    near, farther, farthest = std("mobilenet_v3_large", "mobilenet_v3_large@2", "mobilenet_v3_large@4/512")
    assert near < farther < farthest
    assert std("mobilenet_v3_large/224")[0] < std("mobilenet_v3_large/48")[0]
    assert std("efficientnet_b0")[0] < std("efficientnet_b0@2/512")[0]


def _walks(seed: Architecture, kind: str) -> list[list[Architecture]]:
    """For every site: the seed, then that site 8 channels narrower each time, to a third."""
    return [
        [seed, *(narrow(seed, site, width) for width in site.widths(8) if width >= site.channels // 3)]
        for site in sites(seed)
        if site.kind == kind
    ]


@pytest.mark.parametrize("seed", SEEDS)
def test_shrinking_never_raises_top1_noticeably_and_never_jumps(seed: str) -> None:
    architecture = parse_network(seed)
    for walk in (*_walks(architecture, "expansion"), *_walks(architecture, "bottleneck")):
        path = top1(*walk)
        assert path.max() - path[0] < 0.05
        assert np.abs(np.diff(path)).max(initial=0) < 1.0


@pytest.mark.parametrize("seed", SEEDS)
def test_expansions_act_smoothly(seed: str) -> None:
    for walk in _walks(parse_network(seed), "expansion"):
        assert np.abs(np.diff(top1(*walk))).max(initial=0) < 0.2


@pytest.mark.parametrize("seed", SEEDS)
def test_squeeze_excite_and_larger_kernels_help_on_the_whole(seed: str) -> None:
    base = parse_network(seed)
    plain = base.map_blocks(lambda b: replace(b, squeeze_excite=None))
    squeezed = base.map_blocks(
        lambda b: replace(b, squeeze_excite=SqueezeExciteSpec(make_divisible(b.expanded_channels / 4)))
    )
    small = base.map_blocks(lambda b: replace(b, kernel_size=3))
    large = base.map_blocks(lambda b: replace(b, kernel_size=5))
    without, with_se, kernel_3, kernel_5 = top1(plain, squeezed, small, large)
    assert 0.5 < with_se - without < 6
    assert 0.2 < kernel_5 - kernel_3 < 6


def test_wider_and_finer_is_better() -> None:
    widths = top1(*(parse_network(f"mobilenet_v3_large@{width}") for width in (0.35, 0.5, 0.75, 1.0, 1.25)))
    sizes = top1(*(parse_network(f"mobilenet_v3_small/{size}") for size in (96, 128, 160, 192, 224, 256)))
    assert (np.diff(widths) > 0.5).all()
    assert (np.diff(sizes) > 0.5).all()


@settings(max_examples=30)
@given(architectures())
def test_any_architecture_gets_a_percentage(architecture: Architecture) -> None:
    (answer,) = ImagenetPrior().evaluate([architecture])
    assert 0 < answer.top1 < 100
    assert answer.top1_std is not None
    assert 0 < answer.top1_std < math.inf


def test_names_of_layers_conventions_and_order_of_asking_do_not_matter() -> None:
    networks = [parse_network(name) for name in (*SEEDS, "mobilenet_v1@0.5/160")] * 3
    together = top1(*networks)
    assert together == pytest.approx(np.array([top1(network)[0] for network in networks]), abs=2e-6)


def test_the_file_is_small_and_says_where_it_comes_from() -> None:
    text = SHIPPED.read_text(encoding="utf-8")
    provenance = json.loads(text)["provenance"]
    assert len(text.encode()) <= 1_000_000
    assert [source["licence"] for source in provenance["sources"]] == ["Apache-2.0", "Apache-2.0", "facts"]
    assert [source["rows"] for source in provenance["sources"]] == [1625, 4081, 99]
    assert "benchmarks" in provenance["command"]
    assert {"date", "versions", "seed"} <= provenance.keys()


def _altered(tmp_path: Path, **changes: object) -> ImagenetPrior:
    data = json.loads(SHIPPED.read_text(encoding="utf-8")) | changes
    path = tmp_path / "prior.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    return ImagenetPrior(path)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version": 99}, "version 99.*reads 2"),
        ({"format": "other"}, "format must be"),
        ({"features": ["depth"]}, "other features"),
        ({"center": [1.0]}, "'center' must be finite numbers"),
        ({"center": math.inf}, "Infinity is no number"),
        ({"scale": None}, "scale"),
        ({"inducing": 3}, "cannot be used"),
        ({"recipes": {"published": 1}}, "cannot be used"),
    ],
)
def test_a_file_of_another_kind_is_refused(tmp_path: Path, changes: dict[str, object], says: str) -> None:
    with pytest.raises(EvaluatorError, match=says):
        _altered(tmp_path, **changes).evaluate([parse_network("mobilenet_v2")])


def test_a_truncated_or_missing_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "prior.json"
    path.write_text(SHIPPED.read_text(encoding="utf-8")[:5000], encoding="utf-8")
    with pytest.raises(EvaluatorError, match=r"cannot be used.*restore"):
        ImagenetPrior(path).evaluate([parse_network("mobilenet_v2")])
    with pytest.raises(EvaluatorError, match="cannot be read"):
        ImagenetPrior(tmp_path / "none.json").evaluate([parse_network("mobilenet_v2")])


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda data: data["recipes"]["published"].pop("noise_variance"), "noise_variance"),
        (lambda data: data["recipes"]["published"].update(offset="x"), "cannot be used"),
        (
            lambda data: data["recipes"]["once_for_all"].update(covariance_factor="AAAAAAAA"),
            "'covariance_factor' must be the tri",
        ),
        (lambda data: data["recipes"]["once_for_all"].update(covariance_factor="é"), "cannot be used"),
    ],
)
def test_a_damaged_recipe_is_named(tmp_path: Path, change: Callable[[Any], object], says: str) -> None:
    data = json.loads(SHIPPED.read_text(encoding="utf-8"))
    change(data)
    path = tmp_path / "prior.json"
    path.write_text(json.dumps(data), encoding="utf-8")
    with pytest.raises(EvaluatorError, match=says):
        ImagenetPrior(path).evaluate([parse_network("mobilenet_v2")])


def test_recipes_predict_what_each_is() -> None:
    large = parse_network("mobilenet_v3_large")
    published, subnet, short = (
        ImagenetPrior(recipe=recipe).evaluate([large])[0].top1 for recipe in ("published", *RECIPES_OF_SPACES.values())
    )
    assert published == pytest.approx(75.2, abs=0.6)
    assert 74 < subnet < 77
    assert short < published - 3
    with pytest.raises(UnknownNameError, match=r"recipe of the ImageNet prior.*once_for_all"):
        ImagenetPrior(recipe="once")


RECIPES_OF_SPACES = {"ofa_mbv3": "once_for_all", "mnasnet_anb": "accel_nasbench"}


@pytest.mark.parametrize(("space", "recipe"), RECIPES_OF_SPACES.items())
def test_a_space_of_a_recipe_uses_it(space: str, recipe: str) -> None:
    found = load_evaluator(load_space(space).evaluator or "")
    assert isinstance(found, ImagenetPrior)
    assert found.recipe == recipe


def test_small_images_are_still_ordered() -> None:
    answers = ImagenetPrior().evaluate(load_space("mnv3_small_32").sample(50, seed=1))
    assert len({round(answer.top1, 3) for answer in answers}) > 45


def test_what_lies_outside_the_fitted_networks_is_named_with_its_value_and_the_range() -> None:
    large = parse_network("mobilenet_v3_large")
    assert ImagenetPrior().outside_range(large) == []
    block = replace(large.blocks[1], expanded_channels=int(large.blocks[0].out_channels * 1.5))
    strange = replace(
        large, stem=replace(large.stem, out_channels=4), blocks=(large.blocks[0], block, *large.blocks[2:])
    )
    said = [str(found) for found in ImagenetPrior().outside_range(strange)]
    assert [sentence.partition(" (fitted: ")[0] for sentence in said] == ["expansion ratio 1.5", "stem filters 4"]
    assert said[1].startswith("stem filters 4 (fitted: 8 to ")
    (found,) = ImagenetPrior(recipe="once_for_all").outside_range(large)
    assert found.quantity == "expansion ratio"
    assert found.low == pytest.approx(3, abs=0.1)
