"""The published networks by name, at any width and resolution."""

from __future__ import annotations

from mnv3search.families.registry import NETWORKS, PublishedNetwork, parse_network, published

__all__ = ["NETWORKS", "PublishedNetwork", "parse_network", "published"]
