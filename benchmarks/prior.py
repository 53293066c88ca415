"""Fit the ImageNet prior again and say how well it predicts what it has not seen.

Run ``MNV3SEARCH_DATA=… OMP_NUM_THREADS=1 python -m benchmarks.prior``; ``--write`` also replaces the shipped
coefficients. Both tables are predicted by 5-fold cross-validation grouped by effective network, hyper-parameters and
inducing points chosen anew in each fold; the published networks one at a time (hyper-parameters chosen with all of
them) and a family at a time (hyper-parameters without it).
"""

from __future__ import annotations

import argparse
import json
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks._results import ROOT, command, write_results
from benchmarks.prior_changes import as_changes, pressed_changes, starting_changes
from benchmarks.prior_data import family, grid_features, load_rows, other_recipes, published_top1
from benchmarks.prior_heldout import (
    INDUCING,
    HeldOut,
    cross_validated,
    far_scale_from,
    leave_family_out,
    leave_one_out,
    leave_others_scale,
    madds_alone,
    scale_from,
)
from benchmarks.prior_report import OWN_RECIPES, Figures, page
from benchmarks.row_data import data_folder, ofa_rows
from mnv3search.accuracy.prior import FORMAT, VERSION, ImagenetPrior
from mnv3search.accuracy.prior_features import FEATURE_NAMES, FloatArray
from mnv3search.accuracy.prior_fit import Changes, Posterior, fit, make_basis, published_head
from mnv3search.accuracy.prior_hyperparameters import choose_hyperparameters
from mnv3search.accuracy.prior_rows import PUBLISHED, Rows
from mnv3search.families import parse_network

PRESSINGS = 3
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
            {"name": "figures of the papers' own recipes (families/published.csv)",
             "origin": "arXiv:1905.02244; tensorflow/models", "licence": "facts", "rows": count[2]},
        ],
        "holds": "coefficients, and inducing points that are centroids in feature space; no row of any source",
        "command": command(sys.orig_argv),
        "seed": seed,
        "date": datetime.now(tz=UTC).date().isoformat(),
        "versions": {package: metadata.version(package) for package in ("numpy", "scipy")},
    }  # fmt: skip


def write_shipped(posterior: Posterior, far: float, scale: float, rows: Rows, seed: int) -> None:
    """Replace the shipped coefficients."""
    data: dict[str, object] = {
        "format": FORMAT, "version": VERSION, "provenance": provenance(rows, seed), "features": list(FEATURE_NAMES),
    }  # fmt: skip
    data |= published_head(posterior, far, scale)
    part = SHIPPED.with_name(SHIPPED.name + ".part")
    part.write_text(json.dumps(data, separators=(",", ":"), allow_nan=False) + "\n", encoding="utf-8")
    part.replace(SHIPPED)


def outside() -> list[dict[str, object]]:
    """Networks trained by other recipes, as the shipped prior predicts them on the papers' scale."""
    others = other_recipes()
    answers = zip(others, *_shipped([network for _, network, _ in others]), strict=True)
    return [
        {"label": label, "network": network, "top1_by_its_recipe": top1, "predicted": round(float(mean), 2),
         "std": round(float(std), 2)}
        for (label, network, top1), mean, std in answers
    ]  # fmt: skip


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
    h = choose_hyperparameters(rows, seed=seed)
    basis = make_basis(rows, h, grid, INDUCING, seed)
    found = starting_changes(seed)
    posterior = fit(rows, h, basis, as_changes(found))
    for attempt in range(PRESSINGS):
        found += pressed_changes(posterior, seed + attempt)
        posterior = fit(rows, h, basis, as_changes(found))
    return posterior, as_changes(found)


def _families_out(
    rows: Rows, families: NDArray[np.str_], changes: Changes, grid: FloatArray, seed: int
) -> dict[str, HeldOut]:
    """Each family predicted by a fit without it, its deviations as the process states them."""
    found = {}
    for name in sorted(set(families.tolist())):
        found[name] = leave_family_out(rows, families.tolist(), name, grid, changes, seed)
        print(f"  without {name}: {found[name].summary()}", flush=True)
    return found


def _families_summary(out: dict[str, HeldOut], noise: float, scale: float) -> dict[str, dict[str, float]]:
    """What is stated of each family, the widening taken from the other families alone."""
    found = {}
    for name, held in out.items():
        far = far_scale_from([out[other] for other in OWN_RECIPES if other != name], noise)
        found[name] = held.widened(noise, far).scaled(scale).summary()
    return found


def _list(held: HeldOut) -> list[dict[str, object]]:
    return [
        {"network": str(n), "published": round(float(t), 2), "predicted": round(float(p), 2), "std": round(float(s), 2)}
        for n, t, p, s in zip(held.rows.group, held.rows.top1, held.top1, held.std, strict=True)
    ]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--write", action="store_true", help="replace the coefficients that ship")
    parser.add_argument("--quick", action="store_true", help="no cross-validation of the tables, keep no results")
    return parser.parse_args()


def main() -> None:
    """Fit, hold out, print, keep."""
    arguments, folder, start = _arguments(), data_folder(), time.perf_counter()
    if folder is None:
        raise SystemExit("MNV3SEARCH_DATA names no folder; set it to the folder of the accuracy tables")
    rows, grid = load_rows(folder), grid_features()
    posterior, changes = _pressed(rows, grid, arguments.seed)
    print(f"{len(rows)} rows; {posterior.binding.sum()} of {len(changes.gain)} changes bind", flush=True)
    families = np.array([family(network) for network in published_top1()])
    own = np.isin(families, list(OWN_RECIPES))
    noise = float(np.exp(2 * posterior.frame.hyperparameters.log_noise[PUBLISHED]))
    out = _families_out(rows, families, changes, grid, arguments.seed)
    far = far_scale_from([out[name] for name in OWN_RECIPES], noise)
    alone = leave_one_out(posterior, rows).widened(noise, far)
    scale = scale_from(alone.select(own))
    left_out = alone.select(own).scaled(leave_others_scale(alone.select(own)))
    print({"far scale": round(far, 3), "deviation scale": round(scale, 3)} | left_out.summary(), flush=True)
    if arguments.write:
        write_shipped(posterior, far, scale, rows, arguments.seed)
    if arguments.quick:
        return
    held = cross_validated(rows, grid, changes, arguments.seed)
    figures = Figures(
        once_for_all=held.select(held.rows.source == 0).summary(),
        accel_nasbench=held.select(held.rows.source == 1).summary(),
        published=left_out.summary(),
        mobilenet_v1=alone.select(~own).scaled(scale).summary(),
        by_family={name: left_out.select(families[own] == name).summary() for name in sorted(OWN_RECIPES)},
        family_out=_families_summary(out, noise, scale),
        madds_alone=madds_alone(rows, FEATURE_NAMES.index("log_madds"), arguments.seed),
        outside=outside(),
        left_out=_list(left_out),
        shipped=_list(HeldOut(left_out.rows, *_shipped(list(left_out.rows.group)))),
        timing=timing(folder),
        far_scale=far,
        std_scale=scale,
        seconds=round(time.perf_counter() - start, 1),
        file_bytes=SHIPPED.stat().st_size,
    )
    print(write_results("prior", figures.numbers(), page(figures), [arguments.seed]), page(figures), sep="\n\n")


def _shipped(networks: list[str]) -> tuple[FloatArray, FloatArray]:
    answers = ImagenetPrior().evaluate([parse_network(str(network)) for network in networks])
    return np.array([a.top1 for a in answers]), np.array([a.top1_std or 0.0 for a in answers])


if __name__ == "__main__":
    main()
