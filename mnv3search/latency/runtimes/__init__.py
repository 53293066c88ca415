"""Runtimes that time units and whole networks on this machine, one file each."""

from __future__ import annotations

from mnv3search.latency.runtimes.base import MAX_THREADS, CallSession, Runtime, Session, Subject
from mnv3search.latency.runtimes.registry import ENTRY_POINT_GROUP, RUNTIMES, load_runtime, runtime_names

__all__ = [
    "ENTRY_POINT_GROUP",
    "MAX_THREADS",
    "RUNTIMES",
    "CallSession",
    "Runtime",
    "Session",
    "Subject",
    "load_runtime",
    "runtime_names",
]
