"""What a measurement's machine is, as far as times depend on it."""

from __future__ import annotations

import math
import os
import platform
from dataclasses import dataclass
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True)
class Fingerprint:
    """CPU model as the system names it, logical cores, and instruction set (``x86_64``, ``aarch64`` …)."""

    cpu: str
    cores: int
    arch: str

    def __str__(self) -> str:
        """One short phrase: ``AMD EPYC 7763, 8 cores, x86_64``."""
        return f"{self.cpu}, {self.cores} cores, {self.arch}"


def this_machine(cpuinfo: Path = CPUINFO) -> Fingerprint:
    """The fingerprint of the machine that this process runs on."""
    return Fingerprint(_cpu_model(cpuinfo), os.cpu_count() or 1, platform.machine())


def saturates_in_8_bits(cpuinfo: Path = CPUINFO) -> bool:
    """Whether 8-bit kernels may saturate at 16 bits here: on x86 without VNNI; no elsewhere, or where it is unknown."""
    try:
        return platform.machine().lower() in {"x86_64", "amd64"} and b"vnni" not in cpuinfo.read_bytes()
    except OSError:
        return False


def load_average() -> float | None:
    """How many programs wanted a core of this machine within the last minute; None where the system does not say."""
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):
        return None
    return load if math.isfinite(load) else None


def _cpu_model(cpuinfo: Path) -> str:
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux: the platform's own answer has to do
        lines = []
    fields = [line.partition(":") for line in lines]
    named = [value.strip() for name, _, value in fields if name.strip() in {"model name", "Hardware", "Model"}]
    return next((model for model in named if model), "") or platform.processor() or platform.machine()
