"""Networks whose weights are about to be written over: built without drawing torch's initial ones, most of the time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from torch.nn import init
from torch.overrides import TorchFunctionMode

from mnv3search.architecture import Architecture
from mnv3search.network.build import MobileNetwork

_DRAWS: frozenset[Callable[..., Any]] = frozenset({init.kaiming_uniform_, init.uniform_})


class _Undrawn(TorchFunctionMode):
    """Within it, on this thread, torch's layers leave their weights and biases as the memory was; norms are set."""

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Iterable[type],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        given = dict(kwargs or {})
        if func in _DRAWS:
            return args[0] if args else given["tensor"]
        return func(*args, **given)


def undrawn_network(architecture: Architecture) -> MobileNetwork:
    """The network of ``architecture`` in training mode; weights and biases of convolutions and linear layers are unset.

    Norms are 1 and 0. Nothing random is drawn, so torch's generator stays as it is.
    """
    with _Undrawn():
        return MobileNetwork(architecture)
