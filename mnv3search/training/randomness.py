"""Random numbers of a training: a seed of its own for every step, so that none has to be remembered."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

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
