"""The two benchmark spaces hold every network of their published rows, with the published counts."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np

from mnv3search.space import CountBatch, SearchSpace, load_space


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


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


def test_once_for_all_rows_have_the_published_parameters_and_macs(data_dir: Path) -> None:
    space, rows = load_space("ofa_mbv3"), _rows(data_dir / "ofa_mbv3_subnets_imagenet.csv")
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


def test_accel_nasbench_rows_have_the_published_parameters(data_dir: Path) -> None:
    space, rows = load_space("mnasnet_anb"), _rows(data_dir / "accel_nasbench_mnasnet_imagenet.csv")
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
