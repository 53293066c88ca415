"""A recipe's optimiser (norms and biases are never decayed), and the exponential moving average of the weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor, nn
    from torch.optim import Optimizer

    from mnv3search.training.recipe import Recipe


def make_optimiser(module: nn.Module, recipe: Recipe) -> Optimizer:
    """The optimiser of ``recipe`` over the parameters of ``module`` that ask for gradients.

    Weight decay is L2 added to the gradient (``rmsprop_tf``, ``sgd``) or decoupled from it (``adamw``), and acts on
    the weights of convolutions and linear layers alone. The rate is set anew at every step by the loop.
    """
    groups = decay_groups(module, recipe.weight_decay)
    if recipe.optimizer == "rmsprop_tf":
        from mnv3search.training.rmsprop import TensorFlowRMSprop

        return TensorFlowRMSprop(
            groups, recipe.learning_rate, decay=recipe.squares_decay, momentum=recipe.momentum, eps=recipe.epsilon
        )
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


class MovingAverage:
    """Averages over the steps: ``average ← d · average + (1 − d) · now``.

    The decay ``d`` is ``min(decay, (1 + step) / (10 + step))``, TensorFlow's rule with ``num_updates``: a short
    training is averaged over about its last tenth and never over its first weights. Parameters and the running
    statistics of norms are averaged alike; what is not a floating number is copied. ``tensors`` are the averages by
    their names in the module's state dict.
    """

    def __init__(self, module: nn.Module, decay: float, names: Sequence[str] | None = None) -> None:
        """Begin with the module as it is; ``names`` are the tensors to average, all where None."""
        self.decay = decay
        whole = module.state_dict()
        state = {name: whole[name] for name in (whole if names is None else names)}
        self.tensors = {name: tensor.detach().clone() for name, tensor in state.items()}
        floating = [name for name, tensor in state.items() if tensor.is_floating_point()]
        self._averages = [self.tensors[name] for name in floating]
        self._now = [state[name].detach() for name in floating]
        self._copied = [(self.tensors[name], state[name]) for name in state if name not in floating]

    def update(self, step: int) -> None:
        """Take in the module as it is after ``step`` steps (from 1)."""
        import torch

        decay = min(self.decay, (1 + step) / (10 + step))
        with torch.no_grad():
            torch._foreach_lerp_(self._averages, self._now, 1 - decay)
            for average, now in self._copied:
                average.copy_(now)

    def load(self, tensors: Mapping[str, Tensor]) -> None:
        """Go on from saved averages."""
        import torch

        with torch.no_grad():
            for name, average in self.tensors.items():
                average.copy_(tensors[name])
