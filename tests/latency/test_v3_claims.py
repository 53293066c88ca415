"""The paper's claims about latency as pairs of networks, and what measured ratios say of them."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from benchmarks._v3_latency_claims import (
    LARGE,
    architecture_of,
    claims,
    networks_of,
    original_last_stage,
    published_ratios,
    se_everywhere,
    se_of_input,
    wide_stem,
    without_se,
)
from benchmarks._v3_latency_page import judged, page, verdict
from benchmarks.v3_claims import preparation_std, widened
from mnv3search.architecture import Architecture
from mnv3search.cost import count
from mnv3search.families import published
from mnv3search.latency.measured.whole_networks import Ratio


def _more_madds(architecture: Architecture) -> int:
    return count(architecture).madds - count(published(LARGE)).madds


def test_original_last_stage_costs_what_figure_5_draws() -> None:
    before_the_pool = 49 * (9 * 960 + 960 * 320 + 320 * 1280)
    assert _more_madds(original_last_stage()) == before_the_pool - 960 * 1280


def test_wide_stem_widens_the_first_depthwise_convolution_too() -> None:
    assert _more_madds(wide_stem()) == 112 * 112 * 16 * (3 * 9 + 9 + 16)


def test_squeeze_excite_is_changed_and_nothing_else() -> None:
    squeezes = [b.squeeze_excite.squeeze_channels for b in se_of_input().blocks if b.squeeze_excite]
    assert squeezes == [6, 10, 10, 20, 28, 28, 40, 40]
    assert sum(block.squeeze_excite is not None for block in se_everywhere().blocks) == 15
    plain = without_se()
    assert not any(block.squeeze_excite for block in plain.blocks)
    assert se_everywhere().map_blocks(lambda block: replace(block, squeeze_excite=None)) == plain


def test_published_ratios_are_of_one_campaign() -> None:
    found = published_ratios(LARGE, "mobilenet_v2", "arXiv:1905.02244 Table 3")
    assert [(one.device, one.value) for one in found] == [
        ("Pixel 1", 51 / 64),
        ("Pixel 2", 61 / 76),
        ("Pixel 3", 44 / 56),
    ]
    with pytest.raises(ValueError, match="0 rows of mobilenet_v1"):
        published_ratios("mobilenet_v1", LARGE, "arXiv:1905.02244 Table 3")


def test_every_claim_compares_two_networks_that_can_be_built() -> None:
    some = claims()
    assert len({(claim.network, claim.base) for claim in some}) == len(some)
    assert all(architecture_of(name).classes == 1000 for name in networks_of(some))
    assert all(architecture_of(claim.network) != architecture_of(claim.base) for claim in some)


@pytest.mark.parametrize(
    ("value", "width", "paper", "expected"),
    [
        (0.80, 0.01, [0.79, 0.80], "alike"),
        (0.815, 0.002, [0.80], "alike"),  # within 2 %
        (0.75, 0.002, [0.80], "alike"),  # an effect of 1.29 of the published one
        (0.90, 0.01, [0.80], "weaker"),
        (0.60, 0.01, [0.80], "stronger"),
        (0.99, 0.02, [0.80], "not seen"),
        (1.10, 0.02, [0.80], "opposite"),
        (1.05, 0.02, [1.0], "slower"),
        (0.83, 0.01, [0.95, 0.99, 1.04], "faster"),  # the phones do not agree on a direction
        (0.83, 0.01, [], "not published"),
    ],
)
def test_verdict(value: float, width: float, paper: list[float], expected: str) -> None:
    assert verdict(Ratio(value, value - width, value + width), paper) == expected


def test_interval_holds_what_preparing_anew_changes() -> None:
    std = preparation_std([(1.0, math.exp(0.02)), (1.0, math.exp(-0.02))])
    assert std == pytest.approx(0.02 / math.sqrt(2))
    found = widened(Ratio(1.0, math.exp(-0.03), math.exp(0.03)), 0.04 / 1.96)
    assert (found.low, found.high) == pytest.approx((math.exp(-0.05), math.exp(0.05)))
    assert widened(Ratio(1.0, 0.0, math.inf), 0.01) == Ratio(1.0, 0.0, math.inf)


def test_verdict_needs_an_interval_to_contradict() -> None:
    assert verdict(Ratio(2.0, 0.0, math.inf), [0.5]) == "alike"


def test_naive_kernels_are_not_judged() -> None:
    swish = next(claim for claim in claims() if "everywhere against ReLU" in claim.text)
    assert judged(swish) == [53.4 / 50.5]
    assert len(swish.paper) == 2


def test_page_names_what_disagrees() -> None:
    some = claims()
    here = {"ratio": 0.93, "low": 0.92, "high": 0.94}
    session = {"version": "1", "rounds": 20, "preparation_std": 0.012, "latency_ms": {LARGE: 11.0}}
    numbers = {
        "networks": 1,
        "madds": {LARGE: 216_589_760},
        "runtimes": {"onnxruntime": session},
        "claims": [
            {
                "network": claim.network, "base": claim.base, "madds": 3, "base_madds": 2,
                "here": {"onnxruntime": here | {"verdict": verdict(Ratio(0.93, 0.92, 0.94), judged(claim))}},
            }
            for claim in some
        ],
    }  # fmt: skip
    text = page(some, numbers)
    assert "(onnxruntime 1: 20 rounds, by 1.2 %)" in text
    assert "| Redesigned layers | 0 of 2 |" in text
    assert "- V3-Large against V2 1.0: paper 0.79 to 0.80; weaker in onnxruntime (0.93)" in text
    assert "| 0.80, 0.80, 0.79 (Pixel 1, 2, 3, v5) | 0.930 [0.920, 0.940] **weaker** |" in text
    assert "| SE in 8 of 15 blocks (V3-Large) against none | +0.0 M (1.50) | – | 0.930 [0.920, 0.940] |" in text
    assert text.count("\n| V3-") == sum(claim.text.startswith("V3-") for claim in some)
