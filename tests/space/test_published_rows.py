"""The two benchmark spaces hold every network of their published rows, with the published counts."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mnv3search.space import CountBatch, SearchSpace, load_space

pytestmark = pytest.mark.skipif("MNV3SEARCH_DATA" not in os.environ, reason="MNV3SEARCH_DATA is not set")


def _rows(name: str) -> Iterator[dict[str, str]]:
    path = Path(os.environ["MNV3SEARCH_DATA"]) / name
    if not path.is_file():
        pytest.skip(f"{name} is not in MNV3SEARCH_DATA")
    with path.open(newline="", encoding="utf-8") as file:
        yield from csv.DictReader(file)


def _check(space: SearchSpace, choices: list[dict[str, object]]) -> CountBatch:
    """Counts of all rows by gathering; of the first hundred the whole way through decode too."""
    places = {p.name: (column, {v: i for i, v in enumerate(p.choices)}) for column, p in enumerate(space.parameters)}
    indices = np.zeros((len(choices), len(space.parameters)), dtype=np.int16)
    for line, chosen in enumerate(choices):
        for name, value in chosen.items():
            column, index = places[name]
            indices[line, column] = index[value]  # type: ignore[index]
    for line in range(100):
        assert space.decode(choices[line]) == space.architecture(indices[line])
    return space.count_batch(indices)


def test_once_for_all_rows_have_the_published_parameters_and_macs() -> None:
    space, rows = load_space("ofa_mbv3"), list(_rows("ofa_mbv3_subnets_imagenet.csv"))
    decoded = []
    for row in rows:
        choices: dict[str, object] = {}
        for stage in range(5):
            choices[f"stage{stage + 2}.depth"] = int(row["d"][stage])
            for block in range(4):
                place = f"stage{stage + 2}.block{block + 1}"
                choices[f"{place}.kernel_size"] = int(row["ks"][4 * stage + block])
                choices[f"{place}.expansion_ratio"] = int(row["e"][4 * stage + block])
        decoded.append(choices)
    counts = _check(space, decoded)
    assert len(rows) == 1625
    assert counts.parameters.tolist() == [int(row["params"]) for row in rows]
    assert counts.madds.tolist() == [int(row["macs"]) for row in rows]


def test_accel_nasbench_rows_have_the_published_parameters() -> None:
    space, rows = load_space("mnasnet_anb"), list(_rows("accel_nasbench_mnasnet_imagenet.csv"))
    decoded = []
    for row in rows:
        choices: dict[str, object] = {}
        for stage in range(7):
            choices[f"stage{stage + 1}.depth"] = int(row["l"][stage])
            choices[f"stage{stage + 1}.kernel_size"] = int(row["k"][stage])
            choices[f"stage{stage + 1}.expansion_ratio"] = int(row["e"][stage])
            choices[f"stage{stage + 1}.squeeze_excite"] = row["se"][stage] == "1"
        decoded.append(choices)
    counts = _check(space, decoded)
    assert len(rows) == 4081
    assert counts.parameters.tolist() == [round(float(row["params_m"]) * 1e6) for row in rows]
