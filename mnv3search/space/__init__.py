"""Search spaces: choices over one skeleton, read from YAML (docs/spaces.md)."""

from __future__ import annotations

from mnv3search.space.choices import BlockChoices, Parameter, Skeleton, StageChoices
from mnv3search.space.loading import load_space, parse_space, space_names, space_schema, space_text
from mnv3search.space.space import CountBatch, PricedSpace, SearchSpace

__all__ = [
    "BlockChoices",
    "CountBatch",
    "Parameter",
    "PricedSpace",
    "SearchSpace",
    "Skeleton",
    "StageChoices",
    "load_space",
    "parse_space",
    "space_names",
    "space_schema",
    "space_text",
]
