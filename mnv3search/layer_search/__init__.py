"""Layer search: NetAdapt."""

from __future__ import annotations

from mnv3search.layer_search.netadapt import NetAdaptOptions, netadapt
from mnv3search.layer_search.proposals import Proposal, SelectionRule, Site, narrow, sites
from mnv3search.layer_search.result import NetAdaptResult, Step, Steps

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
