"""A seed's result must not depend on the number of cores."""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_info

from mnv3search.threads import on_one_blas_thread


def blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_blas_has_one_thread_within_and_its_own_again_after() -> None:
    np.linalg.eigh(np.eye(3))
    before = blas_threads()
    within: list[set[int]] = []

    @on_one_blas_thread
    def doubled(value: int, *, by: int) -> int:
        """Kept."""
        within.append(blas_threads())
        return value * by

    assert doubled(3, by=2) == 6
    assert within == [{1}]
    assert blas_threads() == before
    assert doubled.__doc__ == "Kept."
