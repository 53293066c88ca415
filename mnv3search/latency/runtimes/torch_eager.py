"""torch in eager mode on the CPU, channels_last: the network as it stands after training, norms unfolded."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mnv3search.architecture import Architecture
from mnv3search.errors import MissingDependencyError
from mnv3search.latency.remote.agent import clock_of
from mnv3search.latency.runtimes.base import (
    WEIGHT_SEED,
    CallSession,
    Precision,
    Session,
    Subject,
    input_image,
    only_fp32,
)

if TYPE_CHECKING:
    from torch import nn


class TorchEager:
    """Times modules in torch; fp32. The number of threads is the whole process's."""

    name = "torch"

    def __init__(self, threads: int = 1, precision: Precision = "fp32") -> None:
        only_fp32(self.name, precision)
        try:
            import torch
        except ImportError:
            raise MissingDependencyError("torch", "measuring with torch") from None
        self._torch: Any = torch
        self.version: str = torch.__version__
        self.threads = threads
        self.precision: Precision = precision

    def prepare(self, subject: Subject) -> Session:
        """A module in evaluation mode, with the weights of the graphs and its input in place."""
        torch = self._torch
        torch.set_num_threads(self.threads)
        image = torch.from_numpy(input_image(subject)).contiguous(memory_format=torch.channels_last)
        module = _module(subject).to(memory_format=torch.channels_last)

        def call() -> Any:
            with torch.inference_mode():
                return module(image)

        return CallSession(call, lambda: np.asarray(call().numpy()), clock_of(self.threads))


def exact_output(subject: Subject) -> NDArray[np.float64]:
    """What ``subject`` gives on its input image, by torch in double precision; NCHW or (1, classes)."""
    with threads_kept() as torch, torch.inference_mode():
        torch.set_num_threads(1)
        image = torch.from_numpy(input_image(subject)).double()
        return np.asarray(_module(subject).double()(image).numpy(), dtype=np.float64)


@contextmanager
def threads_kept() -> Iterator[Any]:
    """torch, whose number of threads is at the end what it was before.

    Raises:
        MissingDependencyError: torch is not installed.
    """
    try:
        import torch
    except ImportError:
        raise MissingDependencyError("torch", "checking what a runtime computes") from None
    threads = torch.get_num_threads()
    try:
        yield torch
    finally:
        torch.set_num_threads(threads)


def _module(subject: Subject) -> nn.Module:
    from mnv3search.network.folded import folded_network, folded_unit

    if isinstance(subject, Architecture):
        return folded_network(subject, WEIGHT_SEED)
    return folded_unit(subject, WEIGHT_SEED)
