"""Where a training runs: one process or several, and in which precision; Hugging Face accelerate knows."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from mnv3search.errors import MissingDependencyError, TrainingError

if TYPE_CHECKING:
    from mnv3search.training.recipe import Precision

_MIXED = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def accelerator(precision: Precision = "fp32") -> Any:
    """An ``Accelerator`` of Hugging Face accelerate: it finds the GPU, and the other processes that were launched.

    ``auto`` is bf16 or fp16 on CUDA and fp32 elsewhere: on CPUs without bf16 units autocast is several times slower.

    Raises:
        TrainingError: fp16 on a CPU, which cannot train in it.
        MissingDependencyError: accelerate is not installed.
    """
    import torch

    try:
        from accelerate import Accelerator
        from accelerate.state import AcceleratorState
        from accelerate.utils import DistributedDataParallelKwargs
    except ImportError:
        raise MissingDependencyError("accelerate", "training") from None
    cuda = torch.cuda.is_available()
    if precision == "auto":
        precision = ("bf16" if torch.cuda.is_bf16_supported() else "fp16") if cuda else "fp32"
    if precision == "fp16" and not cuda:
        raise TrainingError("precision fp16 needs a CUDA device, and there is none; choose fp32, bf16 or auto")
    # accelerate keeps one state for the whole process and refuses another precision; the process group stays.
    AcceleratorState._reset_state(reset_partial_state=False)
    # Running statistics are averaged once an epoch, not sent at each step.
    wrapping = DistributedDataParallelKwargs(broadcast_buffers=False)
    # Without a device of their own accelerate joins processes only where it is told to stay on the CPU.
    on_cpus = process_count() > 1 and not (cuda or torch.xpu.is_available())
    made = Accelerator(cpu=on_cpus, mixed_precision=_MIXED[precision], kwargs_handlers=[wrapping])
    if made.num_processes != process_count():
        raise TrainingError(
            f"{process_count()} processes were launched, but accelerate joined {made.num_processes}; start them with "
            "torchrun or accelerate launch"
        )
    return made


def judging_device() -> str:
    """Where a network is judged: ``cuda`` where there is one, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def is_main_process() -> bool:
    """Whether this process is the only one or the first of those that ``torchrun`` or ``accelerate launch`` started."""
    return int(os.environ.get("RANK", "0")) == 0


def process_count() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def wait_for_everyone() -> None:
    """Wait until all processes have come here."""
    if process_count() > 1:
        accelerator().wait_for_everyone()
