"""How many images a second a step of training takes, beside torchvision's own network under a plain loop.

A step is forward, backward and SGD on a batch of random images already in channels-last. The ways take turns, one step
each, in one process; a way's ratio is the median over rounds of the plain loop's seconds over its own.
"""

from __future__ import annotations

import argparse
import dataclasses
import time
from collections.abc import Callable, Iterator

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks._results import write_results
from mnv3search.architecture import Architecture
from mnv3search.families import published
from mnv3search.network.build import MobileNetwork, build_network
from mnv3search.network.layers import ConvNormActivation, Head, SqueezeExcite
from mnv3search.network.training_mode import prepare_for_training
from mnv3search.space import load_space

NETWORKS = ("mobilenet_v3_small", "mobilenet_v3_large", "mnv3_small_32")
PLAIN, OWN, WHOLE = "torchvision, plain loop", "own network, plain loop", "prepared, fused SGD"
Step = Callable[[], None]
Timings = dict[str, dict[str, float]]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS), choices=NETWORKS)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def architecture_of(name: str, side: int) -> Architecture:
    """A published network for ten classes, or the reference of a space."""
    if name in load_space_names():
        return load_space(name).reference
    return dataclasses.replace(published(name, resolution=side), classes=10)


def load_space_names() -> frozenset[str]:
    """Those of :data:`NETWORKS` that name a space."""
    return frozenset({"mnv3_small_32"})


def ways(name: str, side: int) -> Iterator[tuple[str, nn.Module, bool]]:
    """What takes turns: its name, its network, and whether SGD is torch's fused one; each way adds one change."""
    import torchvision

    if name not in load_space_names():
        theirs = getattr(torchvision.models, name)(num_classes=10)
        yield PLAIN, theirs.to(memory_format=torch.channels_last), False
    made = [build_network(architecture_of(name, side)).to(memory_format=torch.channels_last) for _ in range(5)]
    yield OWN, made[0], False
    yield "+ depthwise gradients", partly(made[1], depthwise=True), False
    yield "+ 1×1 as matrix products", partly(made[2], depthwise=True, pointwise=True), False
    yield "+ dropout", prepare_for_training(made[3]), False
    yield WHOLE, prepare_for_training(made[4]), True


def partly(network: MobileNetwork, *, depthwise: bool = False, pointwise: bool = False) -> MobileNetwork:
    """``network`` with some of what :func:`prepare_for_training` does."""
    prepare_for_training(network)
    for module in network.modules():
        if isinstance(module, ConvNormActivation):
            module.fast_gradients = depthwise if module.conv.groups > 1 else pointwise
        elif isinstance(module, SqueezeExcite):
            module.fast_gradients = pointwise
        elif isinstance(module, Head):
            module.fast_gradients = False
    return network


def step_of(network: nn.Module, images: torch.Tensor, labels: torch.Tensor, *, fused: bool) -> Step:
    """One step of SGD with momentum."""
    network.train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, fused=fused or None)

    def step() -> None:
        optimizer.zero_grad()
        functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def timed(name: str, args: argparse.Namespace, threads: int) -> Timings:
    """Images/s, ratio to the first way, and the ratio's quartiles over rounds, of each way."""
    torch.set_num_threads(threads)
    generator = torch.Generator().manual_seed(args.seed)
    images = torch.randn(args.batch, 3, args.side, args.side, generator=generator)
    images = images.to(memory_format=torch.channels_last)
    labels = torch.randint(10, (args.batch,), generator=generator)
    steps = {way: step_of(network, images, labels, fused=fused) for way, network, fused in ways(name, args.side)}
    seconds = np.empty((args.rounds, len(steps)))
    for turn in range(-3, args.rounds):
        for column, step in enumerate(steps.values()):
            start = time.perf_counter()
            step()
            if turn >= 0:
                seconds[turn, column] = time.perf_counter() - start
    ratios = seconds[:, :1] / seconds
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75], axis=0)
    rates = args.batch / np.median(seconds, axis=0)
    return {
        way: {"images_per_second": float(r), "ratio": float(m), "ratio_25": float(a), "ratio_75": float(b)}
        for way, r, m, a, b in zip(steps, rates, middle, low, high, strict=True)
    }


def table(found: dict[str, Timings]) -> str:
    """Markdown, a row for each way."""
    lines = ["| network, threads | way | images/s | ratio | quartiles of the ratio |", "|---|---|---|---|---|"]
    lines += [
        f"| {case} | {way} | {t['images_per_second']:.0f} |"
        f" {t['ratio']:.2f} | {t['ratio_25']:.2f}–{t['ratio_75']:.2f} |"
        for case, timings in found.items()
        for way, t in timings.items()
    ]
    return "\n".join(lines)


def main() -> None:
    """Time every network at every number of threads and keep the table."""
    args = arguments()
    torch.manual_seed(args.seed)
    found: dict[str, Timings] = {}
    for threads in args.threads:
        for name in args.networks:
            found[f"{name}, {threads}"] = timed(name, args, threads)
            print(table({f"{name}, {threads}": found[f"{name}, {threads}"]}), flush=True)
    readme = f"# Steps of training, batch {args.batch}, {args.side}×{args.side}\n\n{table(found)}\n\n{__doc__}"
    write_results("training", {"cases": found}, readme, seeds=[args.seed])


if __name__ == "__main__":
    main()
