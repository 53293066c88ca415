"""Layer search: NetAdapt."""

from __future__ import annotations

from mnv3search.layer_search.loop import NetAdaptOptions, netadapt
from mnv3search.layer_search.proposals import Site, narrow, sites
from mnv3search.layer_search.result import NetAdaptResult, Step, Steps
from mnv3search.layer_search.selection import Proposal, SelectionRule

__all__ = [
    "NetAdaptOptions",
    "NetAdaptResult",
    "Proposal",
    "SelectionRule",
    "Site",
    "Step",
    "Steps",
    "narrow",
    "netadapt",
    "sites",
]
