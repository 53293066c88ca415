"""Fit the ImageNet prior again and say how well it predicts what it has not seen.

Run ``MNV3SEARCH_DATA=… OMP_NUM_THREADS=1 python -m benchmarks.prior``; ``--write`` also replaces the shipped
coefficients. Both tables are predicted by 5-fold cross-validation grouped by effective network, hyper-parameters and
inducing points chosen anew in each fold, in their own recipe and as ``ImagenetPrior().evaluate`` answers; the published
networks one at a time (hyper-parameters chosen with all of them) and a family at a time (hyper-parameters without it).
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterable
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from benchmarks._results import ROOT, command, write_results
from benchmarks.prior_changes import as_changes, broken_changes, pressed_changes, starting_changes
from benchmarks.prior_data import fitted_networks, grid_features, load_rows
from benchmarks.prior_heldout import (
    SHARING,
    Calibration,
    HeldOut,
    both,
    cross_validated,
    fitted,
    fold_of_rows,
    leave_family_out,
    leave_one_out,
    madds_alone,
    shared_by,
)
from benchmarks.prior_hyperparameters import choose_hyperparameters
from benchmarks.prior_model import Changes, Posterior, shipped
from benchmarks.prior_report import OWN_RECIPES, Figures, page
from benchmarks.prior_rows import SOURCES, IntArray, Rows
from benchmarks.row_data import data_folder, ofa_rows
from mnv3search.accuracy.prior import FORMAT, VERSION, ImagenetPrior, Range, quantities
from mnv3search.accuracy.prior_features import FEATURE_NAMES, FloatArray
from mnv3search.architecture import Architecture

ROUNDS = 3
SHIPPED = ROOT / "mnv3search" / "accuracy" / "imagenet_prior.json"


def provenance(rows: Rows, seed: int) -> dict[str, object]:
    """Where the coefficients come from."""
    import sys
    from importlib import metadata

    count = [int((rows.source == source).sum()) for source in range(3)]
    return {
        "sources": [
            {"name": "once-for-all MobileNetV3 w1.0 subnets", "origin": "IntelLabs/DyNAS-T", "licence": "Apache-2.0",
             "rows": count[0]},
            {"name": "Accel-NASBench MnasNet space", "origin": "afzalxo/Accel-NASBench", "licence": "Apache-2.0",
             "rows": count[1]},
            {"name": "figures of papers (families/published.csv) and of timm's results table",
             "origin": "arXiv:1905.02244; tensorflow/models; timm results/results-imagenet.csv", "licence": "facts",
             "rows": count[2]},
        ],
        "holds": "coefficients; features of published networks, and centroids of the tables'; no row of a table",
        "command": command(sys.orig_argv),
        "seed": seed,
        "date": datetime.now(tz=UTC).date().isoformat(),
        "versions": {package: metadata.version(package) for package in ("numpy", "scipy")},
    }  # fmt: skip


def ranges(architectures: Iterable[Architecture]) -> dict[str, Range]:
    """The ranges of all the networks together."""
    found: dict[str, Range] = {}
    for architecture in architectures:
        for name, (low, high) in quantities(architecture).items():
            known = found.get(name, (low, high))
            found[name] = (min(known[0], low), max(known[1], high))
    return found


def write_shipped(posterior: Posterior, calibrations: list[Calibration], rows: Rows, folder: Path, seed: int) -> None:
    """Replace the shipped coefficients."""
    fitted_to, noise = fitted_networks(folder), np.exp(2 * posterior.frame.hyperparameters.log_noise)
    recipes: dict[str, dict[str, object]] = {
        name: {
            "noise_variance": round(float(calibration.noise**2 * variance), 6),
            "spread_scale": calibration.spread,
            "fitted": {quantity: list(limits) for quantity, limits in ranges(fitted_to[name]).items()},
        }
        for name, calibration, variance in zip(SOURCES, calibrations, noise, strict=True)
    }
    data: dict[str, object] = {
        "format": FORMAT, "version": VERSION, "provenance": provenance(rows, seed), "features": list(FEATURE_NAMES),
    }  # fmt: skip
    data |= shipped(posterior, recipes)
    part = SHIPPED.with_name(SHIPPED.name + ".part")
    part.write_text(json.dumps(data, separators=(",", ":"), allow_nan=False) + "\n", encoding="utf-8")
    part.replace(SHIPPED)


def timing(folder: Path) -> dict[str, float]:
    """Milliseconds of the shipped prior, feature extraction included: the median of 20 calls."""
    architectures = list(dict.fromkeys(row.architecture for row in ofa_rows(folder)))[:1000]
    prior = ImagenetPrior()
    prior.evaluate(architectures[:1])
    start = time.perf_counter()
    prior.evaluate(architectures)
    found = {"batch_1000_first_ms": round((time.perf_counter() - start) * 1e3, 1)}
    for name, batch in (("one_ms", architectures[:1]), ("batch_1000_ms", architectures)):
        seconds = []
        for _ in range(20):
            start = time.perf_counter()
            prior.evaluate(batch)
            seconds.append(time.perf_counter() - start)
        found[name] = round(float(np.median(seconds)) * 1e3, 3)
    return found


def _pressed(rows: Rows, grid: FloatArray, seed: int) -> tuple[Posterior, Changes]:
    """The fit after what searches pressed out of it was ruled out, and all that is believed then."""
    found = starting_changes(seed)
    h = choose_hyperparameters(rows, SHARING, seed=seed)
    posterior = fitted(rows, grid, as_changes(found), seed, h)
    for attempt in range(ROUNDS):
        found += pressed_changes(posterior, seed) if attempt == 0 else []
        found += broken_changes(posterior, seed + attempt)
        posterior = fitted(rows, grid, as_changes(found), seed, h)
        print(f"  {len(found)} changes, {posterior.binding.sum()} bind", flush=True)
    return posterior, as_changes(found)


def _list(held: HeldOut, std: FloatArray) -> list[dict[str, object]]:
    return [
        {"network": str(n), "published": round(float(t), 2), "predicted": round(float(p), 2), "std": round(float(s), 2)}
        for n, t, p, s in zip(held.rows.group, held.rows.top1, held.top1, std, strict=True)
    ]


def _by_fold(held: HeldOut, fold: IntArray) -> dict[str, float]:
    """The mean over the folds of each figure: what one fit says of rows that it has not seen."""
    found = [held[fold == k].summary() for k in np.unique(fold)]
    return {key: round(float(np.mean([summary[key] for summary in found])), 4) for key in found[0]}


def _of_tables(
    rows: Rows, grid: FloatArray, changes: Changes, seed: int
) -> tuple[dict[str, object], list[Calibration]]:
    """Figures of both tables, and the calibrations of their recipes."""
    fold = fold_of_rows(rows, seed)
    own, evaluated = cross_validated(rows, fold, grid, changes, seed)
    of_table, calibrations = fold[fold >= 0], []
    found: dict[str, object] = {}
    for source, name in enumerate(SOURCES[:2]):
        part = own.rows.source == source
        coverage = own[part].coverage(own[part].cross_calibrated(of_table[part]))
        found[name] = {
            "evaluate": _by_fold(evaluated[part], of_table[part]), "recipe": _by_fold(own[part], of_table[part]),
            "coverage": coverage,
        }  # fmt: skip
        calibrations.append(own[part].calibration())
    found["madds_alone"] = madds_alone(rows, fold, FEATURE_NAMES.index("log_madds"))
    return found, calibrations


def _of_published(alone: HeldOut, families: HeldOut) -> tuple[dict[str, object], Calibration]:
    """Figures of the published networks, and their calibration; deviations by the other families' errors."""
    together = both(alone, families)
    std = together.cross_calibrated(together.rows.family)
    alone_std, families_std = std[: len(alone.mean)], std[len(alone.mean) :]
    own = np.isin(alone.rows.family, OWN_RECIPES) & (alone.rows.recipe_std == 0)
    earlier = np.isin(families.rows.family, ("mobilenet_v1", "mobilenet_v2", "mobilenet_v3"))
    by_family = {}
    for name in np.unique(families.rows.family):
        part = families.rows.family == name
        by_family[str(name)] = families[part].summary() | {"std": round(float(families_std[part].mean()), 2)}
    found: dict[str, object] = {
        "one_out": alone[own].summary(), "one_out_all": alone.summary(),
        "one_out_others": alone[alone.rows.recipe_std > 0].summary(), "by_family": by_family,
        "families_out": families.summary(), "later_families_out": families[~earlier].summary(),
        "coverage": together.coverage(std), "left_out": _list(alone, alone_std),
    }  # fmt: skip
    return found, together.calibration()


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=2, help="of the parts of the tables, and of the folds")
    parser.add_argument("--write", action="store_true", help="replace the coefficients that ship")
    return parser.parse_args()


def main() -> None:
    """Fit, hold out, print, keep."""
    arguments, folder, start = _arguments(), data_folder(), time.perf_counter()
    if folder is None:
        raise SystemExit("MNV3SEARCH_DATA names no folder; set it to the folder of the accuracy tables")
    rows, grid, seed = load_rows(folder), grid_features(), arguments.seed
    posterior, changes = _pressed(rows, grid, seed)
    print(f"{len(rows)} rows; {posterior.binding.sum()} of {len(changes.gain)} changes bind", flush=True)
    alone, families = leave_one_out(posterior, rows), leave_family_out(rows, grid, changes, seed)
    published, calibration = _of_published(alone, families)
    print({name: published[name] for name in ("one_out", "families_out", "later_families_out", "coverage")}, flush=True)
    tables, calibrations = _of_tables(rows, grid, changes, seed)
    if arguments.write:
        write_shipped(posterior, [*calibrations, calibration], rows, folder, seed)
    figures = Figures(
        tables=tables,
        published=published,
        sharing=shared_by(rows, posterior.frame.hyperparameters, grid, seed),
        timing=timing(folder),
        seconds=round(time.perf_counter() - start, 1),
        file_bytes=SHIPPED.stat().st_size,
    )
    print(write_results("prior", figures.numbers(), page(figures), [seed]), page(figures), sep="\n\n")


if __name__ == "__main__":
    main()
