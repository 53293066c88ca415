"""The C library's memory, kept between the steps of a training."""

from __future__ import annotations

import ctypes
import sys

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # glibc's malloc.h
_ONE_GIB, _NEVER = 2**30, 2**31 - 1


def keep_freed_memory() -> bool:
    """Let glibc keep what one step frees for the next, for the rest of the process; returns whether it does.

    By default a step's larger tensors are given back to the system and taken anew, a page fault every 4 KiB: up to a
    tenth of a step of MobileNetV3-Large on 32×32 images (``benchmarks/training.py``). The process then stays as large
    as it once was. Other C libraries are left as they are.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is None:
        return False
    return bool(mallopt(_TRIM_THRESHOLD, _NEVER)) and bool(mallopt(_MMAP_THRESHOLD, _ONE_GIB))
