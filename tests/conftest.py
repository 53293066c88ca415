"""What every test gets: a drawing backend without a screen, repeatable examples, a cache of its own, the row data."""

from __future__ import annotations

import itertools
import os
import signal
from pathlib import Path

# Read when the libraries are first imported, so set before any test module is.
os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
from hypothesis import settings

# A shell that starts tests in the background has them, and all that they start, ignore Ctrl-C; nohup a closed terminal.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)

settings.register_profile("repeatable", derandomize=True, deadline=None, print_blob=False)
settings.load_profile("repeatable")

DATA_VARIABLE = "MNV3SEARCH_DATA"
CACHE_VARIABLE = "MNV3SEARCH_CACHE"

_cache_numbers = itertools.count()


@pytest.fixture(scope="session")
def _caches(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("caches")


@pytest.fixture(autouse=True)
def cache_dir(_caches: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache for each test: none reads what another, or the user, has measured."""
    cache = _caches / str(next(_cache_numbers))
    monkeypatch.setenv(CACHE_VARIABLE, str(cache))
    return cache


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of third-party rows that some claims are checked against."""
    named = os.environ.get(DATA_VARIABLE)
    if not named:
        pytest.skip(f"needs third-party rows: set {DATA_VARIABLE} to the folder that holds them")
    folder = Path(named)
    if not folder.is_dir():
        pytest.fail(f"{DATA_VARIABLE} names {named}, which is no folder; unset it to skip these tests")
    return folder
