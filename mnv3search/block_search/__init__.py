"""Search over blocks: Optuna's samplers and an own batched one, within a latency target."""

from mnv3search.block_search.objective import Objective, reward
from mnv3search.block_search.row_latency import Feasibility, latency_range
from mnv3search.block_search.samplers import SAMPLERS
from mnv3search.block_search.search import SearchProgress, SearchResult, search

__all__ = [
    "SAMPLERS",
    "Feasibility",
    "Objective",
    "SearchProgress",
    "SearchResult",
    "latency_range",
    "reward",
    "search",
]
