"""Learning rates by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from training_fakes import RECIPE

from mnv3search.training.recipe import learning_rate, load_recipe


def rate(epochs_passed: float, **changes: Any) -> float:
    values = {"epochs": 10, "learning_rate": 0.4, "reference_batch": 8, "batch_size": 8, "warmup_epochs": 0.0} | changes
    return learning_rate(replace(RECIPE, **values), epochs_passed)


@pytest.mark.parametrize(
    ("epochs_passed", "changes", "expected"),
    [
        (3.0, {"schedule": "constant"}, 0.4),
        (3.0, {"schedule": "constant", "batch_size": 32}, 1.6),
        (0.5, {"schedule": "constant", "warmup_epochs": 2.0}, 0.1),
        (0.0, {"schedule": "cosine"}, 0.4),
        (5.0, {"schedule": "cosine"}, 0.2),
        (10.0, {"schedule": "cosine"}, 0.0),
        (6.0, {"schedule": "cosine", "warmup_epochs": 2.0}, 0.2),
        (2.9, {"schedule": "step", "decay_factor": 0.5, "decay_epochs": 3}, 0.4),
        (3.0, {"schedule": "step", "decay_factor": 0.5, "decay_epochs": 3}, 0.2),
        (9.9, {"schedule": "step", "decay_factor": 0.5, "decay_epochs": 3}, 0.05),
    ],
)
def test_rates(epochs_passed: float, changes: dict[str, Any], expected: float) -> None:
    assert rate(epochs_passed, **changes) == pytest.approx(expected, abs=1e-12)


def test_the_papers_rate() -> None:
    paper = load_recipe("paper")
    at_4096 = replace(paper, batch_size=4096)
    assert learning_rate(at_4096, 5.0) == pytest.approx(0.1 * 0.99)
    assert learning_rate(at_4096, 300.0) == pytest.approx(0.1 * 0.99**100)
    assert learning_rate(replace(paper, batch_size=1024), 300.0) == pytest.approx(0.025 * 0.99**100)
