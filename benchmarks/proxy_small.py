"""What the proxy makes of few images: networks of ``mnv3_small_32`` after its short trainings, over seeds.

``python -m benchmarks.proxy_small --data cifar10.zip --keep after.json`` trains and keeps the accuracies. Run once at
the commit to compare with, ``--before before.json`` then sets both side by side in ``results/<today>-proxy-small/``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks._results import write_results
from benchmarks._shapes import shapes
from mnv3search.accuracy.proxy import Proxy, ProxyOptions
from mnv3search.architecture import Architecture
from mnv3search.space import load_space
from mnv3search.training.data.open_data import open_data
from mnv3search.training.data.splits import DataSplits, stable_subset

SEEDS = (0, 1)
NETWORKS = 3
README = """
# The proxy on few images

{networks} networks of `mnv3_small_32` (its reference and {drawn} drawn at random), each trained by the proxy with seeds
{seeds}; top-1 on held-out images, in percent. Before: the recipe as it stands for thousands of steps and the norms'
running statistics. After: batches that follow from the number of images, and norms calibrated on training images.
The shapes are drawn (`benchmarks/_shapes.py`); the rows of CIFAR-10 are stable subsets.

| images, epochs | chance | before: mean | worst | at chance | after: mean | worst | at chance |
|---|---:|---:|---:|---:|---:|---:|---:|
{rows}

*At chance*: trainings within two standard deviations of chance. Trainings after, of {count}: {done}.
The default was 3 epochs before, and is now as many as make 10,000 passes over an image, 3 to 30.
"""


def main() -> None:
    """Train what is not kept yet; with ``--before`` write the results."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", required=True, help="CIFAR-10 as an image folder or a zip archive of one")
    parser.add_argument("--keep", type=Path, required=True, help="a JSON file of accuracies")
    parser.add_argument("--before", type=Path, help="the same of another commit")
    parser.add_argument("--report", action="store_true", help="train nothing; write what is kept")
    options = parser.parse_args()
    found: dict[str, Any] = json.loads(options.keep.read_text()) if options.keep.exists() else {}
    for name, (data, settings) in ({} if options.report else cases(options.data)).items():
        found.setdefault(name, {"chance": 100 / len(data.train.classes), "judged": len(data.val), "top1": {}})
        for number, network in enumerate(networks()):
            for seed in SEEDS:
                if (key := f"{number}/{seed}") in found[name]["top1"]:
                    continue
                asked = network.with_classes(len(data.train.classes))
                (answer,) = Proxy(data, replace(settings, seed=seed)).evaluate([asked])
                found[name]["top1"][key] = answer.top1
                options.keep.write_text(json.dumps(found, indent=1))
                print(name, key, answer.top1, file=sys.stderr, flush=True)
    if options.before is not None:
        before = json.loads(options.before.read_text())
        print(write_results("proxy-small", {"before": before, "after": found}, readme(before, found), SEEDS))


def cases(cifar: str) -> dict[str, tuple[DataSplits, ProxyOptions]]:
    """Data and options by what a row of the table calls them."""
    whole = open_data(cifar, scan=False)
    val = stable_subset(whole.val, 500)
    few, more = stable_subset(whole.train, 300), stable_subset(whole.train, 1000)
    return {
        "300 shapes of 5 classes, 3 epochs": (shapes(300, 500), ProxyOptions(epochs=3)),
        "300 of CIFAR-10, 3 epochs": (DataSplits(few, val, None), ProxyOptions(epochs=3)),
        "1,000 of CIFAR-10, 1 epoch": (DataSplits(more, val, None), ProxyOptions(epochs=1)),
        "300 shapes of 5 classes, as many epochs as the default": (shapes(300, 500), ProxyOptions()),
    }


def networks() -> list[Architecture]:
    """The reference of the space and some drawn at random."""
    space = load_space("mnv3_small_32")
    return [space.reference, *space.sample(NETWORKS - 1, seed=0)]


def readme(before: Mapping[str, Any], after: Mapping[str, Any]) -> str:
    """The table."""
    rows = "\n".join(
        f"| {name} | {entry['chance']:g} | {_cells(before[name])} | {_cells(entry)} |" for name, entry in after.items()
    )
    return README.format(
        networks=NETWORKS, drawn=NETWORKS - 1, seeds=", ".join(map(str, SEEDS)), rows=rows,
        count=NETWORKS * len(SEEDS), done=", ".join(str(len(entry["top1"])) for entry in after.values()),
    )  # fmt: skip


def _cells(entry: Mapping[str, Any]) -> str:
    values, share = list(entry["top1"].values()), entry["chance"] / 100
    limit = entry["chance"] + 200 * (share * (1 - share) / entry["judged"]) ** 0.5
    return f"{statistics.mean(values):.1f} | {min(values):.1f} | {sum(v <= limit for v in values)}"


if __name__ == "__main__":
    main()
