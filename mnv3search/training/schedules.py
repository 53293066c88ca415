"""The learning rate of every step, as a function of how many epochs have passed."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from mnv3search.training.recipe import Recipe


def learning_rate(recipe: Recipe, epochs_passed: float, batch_size: int | None = None) -> float:
    """The rate at ``epochs_passed`` epochs (a fraction within one), for batches of ``batch_size`` images.

    The recipe's rate belongs to batches of ``reference_batch`` and is scaled in proportion (Goyal et al. 2017,
    arXiv:1706.02677). It rises linearly over the warm-up; then ``cosine`` falls to 0 at the last epoch, ``step``
    multiplies by ``decay_factor`` every ``decay_epochs`` epochs since the start, and ``constant`` stays.
    """
    size = recipe.batch_size if batch_size is None else batch_size
    full = recipe.learning_rate * size / recipe.reference_batch
    if epochs_passed < recipe.warmup_epochs:
        return full * epochs_passed / recipe.warmup_epochs
    if recipe.schedule == "constant":
        return full
    if recipe.schedule == "step":
        return full * recipe.decay_factor ** math.floor(epochs_passed / recipe.decay_epochs + 1e-9)
    span = max(recipe.epochs - recipe.warmup_epochs, 1e-9)
    share = min((epochs_passed - recipe.warmup_epochs) / span, 1.0)
    return full * (1 + math.cos(math.pi * share)) / 2
