"""Runtimes that time units and whole networks on this machine, one file each."""

from __future__ import annotations

from mnv3search.latency.runtimes.base import CallSession, Runtime, Session, Subject
from mnv3search.latency.runtimes.registry import ENTRY_POINT_GROUP, RUNTIMES, load_runtime, runtime_names

__all__ = [
    "ENTRY_POINT_GROUP",
    "RUNTIMES",
    "CallSession",
    "Runtime",
    "Session",
    "Subject",
    "load_runtime",
    "runtime_names",
]
