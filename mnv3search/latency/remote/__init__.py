"""Measuring on another machine over the user's own ssh."""

from __future__ import annotations

from mnv3search.latency.remote.channel import Address, Channel, Patience, parse_address
from mnv3search.latency.remote.remote_runtime import RemoteRuntime, open_remote

__all__ = ["Address", "Channel", "Patience", "RemoteRuntime", "open_remote", "parse_address"]
