"""Where and how repeatably a training runs: processes, precision (Hugging Face accelerate) and a seed for each step."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from mnv3search.errors import MissingDependencyError, TrainingError

if TYPE_CHECKING:
    from mnv3search.training.recipe import Precision

_VARIABLES = {"RANK": "0", "WORLD_SIZE": "1", "LOCAL_RANK": "0"}  # of a launcher, and what they are without one
_ALONE = "unset it to train alone, or start several with torchrun or accelerate launch"
_MIXED = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}


def accelerator(precision: Precision = "fp32") -> Any:
    """An ``Accelerator`` of Hugging Face accelerate: it finds the GPU, and the other processes that were launched.

    ``auto`` is bf16 or fp16 on CUDA and fp32 elsewhere: on CPUs without bf16 units autocast is several times slower.
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
    try:
        made = Accelerator(cpu=on_cpus, mixed_precision=_MIXED[precision], kwargs_handlers=[wrapping])
    except (ValueError, RuntimeError) as error:  # an address that is missing or wrong, processes that do not come
        AcceleratorState._reset_state(reset_partial_state=True)  # else half of a state stays for the next
        if not _VARIABLES.keys() & os.environ.keys():
            raise
        raise TrainingError(f"the processes that were launched could not be joined: {error}; {_ALONE}") from None
    if made.num_processes != process_count():
        raise TrainingError(
            f"{process_count()} processes were launched, but accelerate joined {made.num_processes}; start them with "
            "torchrun or accelerate launch"
        )
    return made


def evaluation_device() -> str:
    """The device for evaluation: ``cuda`` where there is one, else ``cpu``."""
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def is_main_process() -> bool:
    """Whether this process is the only one or the first of those that ``torchrun`` or ``accelerate launch`` started."""
    return _launched()[0] == 0


def process_count() -> int:
    """How many processes train together."""
    return _launched()[1]


def _launched() -> tuple[int, int]:
    """This process's number and the number of processes, by the variables of launchers; (0, 1) without them."""
    figures = {}
    for name, alone in _VARIABLES.items():
        text = os.environ.get(name, alone)
        if not (text.isascii() and text.isdecimal()):
            raise TrainingError(f"{name} is {text!r} in the environment, where a launcher sets a number; {_ALONE}")
        figures[name] = int(text[:9])
    rank, count = figures["RANK"], figures["WORLD_SIZE"]
    if rank >= count:
        raise TrainingError(
            f"RANK is {rank} and WORLD_SIZE {count} in the environment (1 where unset): no launcher sets that; {_ALONE}"
        )
    return rank, count


def wait_for_everyone() -> None:
    """Wait until all processes have come here."""
    if process_count() > 1:
        accelerator().wait_for_everyone()


MAX_SEED = 2**32 - 1


def step_seed(seed: int, epoch: int, step: int, rank: int) -> int:
    """A seed of its own for every step of every process, below 2⁶³."""
    digest = hashlib.blake2b(f"{seed} {epoch} {step} {rank}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


@contextmanager
def own_randomness() -> Iterator[None]:
    """Seeds that are set within leave the program's generators as they were."""
    import torch

    with torch.random.fork_rng(range(torch.cuda.device_count())):
        yield
