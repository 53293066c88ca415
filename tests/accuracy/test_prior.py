"""The shipped prior: its answers near the papers', its uncertainty, its smoothness, its file."""

from __future__ import annotations

import pytest

from mnv3search.accuracy.prior import ImagenetPrior
from mnv3search.families import parse_network


@pytest.mark.parametrize(
    ("network", "top1"),
    [("mobilenet_v3_large", 75.2), ("mobilenet_v3_small", 67.4), ("mobilenet_v2", 72.0), ("mnasnet_a1", 75.2)],
)
def test_the_references_come_out_near_their_published_figures(network, top1):
    (evaluation,) = ImagenetPrior().evaluate([parse_network(network)])
    assert evaluation.top1 == pytest.approx(top1, abs=0.5)
    assert 0.1 < evaluation.top1_std < 1.0
