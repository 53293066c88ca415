"""A recipe's optimiser over a network's parameters; norms and biases are never decayed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from mnv3search.training.recipe import Recipe


def make_optimiser(module: nn.Module, recipe: Recipe) -> Optimizer:
    """The optimiser of ``recipe`` over the parameters of ``module`` that ask for gradients.

    Weight decay is L2 added to the gradient (``rmsprop_tf``, ``sgd``) or decoupled from it (``adamw``), and acts on
    the weights of convolutions and linear layers alone. The rate is set anew at every step by the loop.
    """
    groups = decay_groups(module, recipe.weight_decay)
    if recipe.optimizer == "rmsprop_tf":
        from mnv3search.network.rmsprop import TensorFlowRMSprop

        return TensorFlowRMSprop(
            groups, recipe.learning_rate, decay=recipe.squares_decay, momentum=recipe.momentum, eps=recipe.epsilon
        )
    return _torch_optimiser(groups, recipe)


def _torch_optimiser(groups: list[dict[str, Any]], recipe: Recipe) -> Optimizer:
    from torch.optim import SGD, AdamW

    if recipe.optimizer == "sgd":
        nesterov = recipe.nesterov and recipe.momentum > 0
        return SGD(groups, recipe.learning_rate, momentum=recipe.momentum, nesterov=nesterov, fused=True)
    return AdamW(groups, recipe.learning_rate, betas=(recipe.momentum, recipe.squares_decay), foreach=True)


def decay_groups(module: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Two groups of trainable parameters: those of two or more dimensions, which are decayed, and the rest."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    decayed, plain = [p for p in trainable if p.dim() > 1], [p for p in trainable if p.dim() <= 1]
    groups = [{"params": decayed, "weight_decay": weight_decay}, {"params": plain, "weight_decay": 0.0}]
    return [group for group in groups if group["params"]]
