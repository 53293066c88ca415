"""RMSProp as TensorFlow computes it, which is what the MobileNetV3 paper's learning rates are for."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class TensorFlowRMSprop(Optimizer):
    """RMSProp with momentum, as TensorFlow's ``RMSPropOptimizer`` and unlike ``torch.optim.RMSprop``.

    ::

        g ← gradient + weight_decay · w
        s ← decay · s + (1 − decay) · g²          s begins at 1, torch's at 0
        m ← momentum · m + rate · g / √(s + ε)    ε inside the root; the rate goes into m, torch's multiplies it
        w ← w − m

    With s at 1 the first steps are small where torch's are ten times too large, and with the rate inside m a decayed
    rate acts after the momentum's memory, not at once.

    Source: tensorflow/python/training/rmsprop.py (documented formula); timm's ``RMSpropTF`` for the differences.
    """

    def __init__(
        self, params: Iterable[Tensor] | Iterable[dict[str, Any]], lr: float, *, decay: float = 0.9,
        momentum: float = 0.9, eps: float = 1e-3, weight_decay: float = 0.0,
    ) -> None:  # fmt: skip
        super().__init__(
            params, {"lr": lr, "decay": decay, "momentum": momentum, "eps": eps, "weight_decay": weight_decay}
        )

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One step from the gradients that the parameters hold."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._step_group(group)
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        weights = [p for p in group["params"] if p.grad is not None]
        if not weights:
            return
        gradients = [p.grad for p in weights]
        states = [self._state_of(p) for p in weights]
        squares, moments = [s["square_avg"] for s in states], [s["momentum_buffer"] for s in states]
        if group["weight_decay"]:
            gradients = list(torch._foreach_add(gradients, weights, alpha=group["weight_decay"]))
        torch._foreach_mul_(squares, group["decay"])
        torch._foreach_addcmul_(squares, gradients, gradients, value=1 - group["decay"])
        roots = torch._foreach_add(squares, group["eps"])
        torch._foreach_sqrt_(roots)
        torch._foreach_mul_(moments, group["momentum"])
        torch._foreach_addcdiv_(moments, gradients, roots, value=group["lr"])
        torch._foreach_sub_(weights, moments)

    def _state_of(self, weight: Tensor) -> dict[str, Tensor]:
        state: dict[str, Tensor] = self.state[weight]
        if not state:
            state["square_avg"] = torch.ones_like(weight)
            state["momentum_buffer"] = torch.zeros_like(weight)
        return state
