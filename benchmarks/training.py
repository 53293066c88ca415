"""How many images a second a step of training takes, beside torchvision's own network under a plain loop.

A step is forward, backward and SGD on a batch of random images already in channels-last. Each way lives in a process of
its own, with an allocator of its own; the ways take turns, STEPS steps each while the others wait. The first of them is
not counted: a training takes its steps one after another, from caches that are its own. A way's ratio is the median
over rounds of the plain loop's seconds over its own in the same round. (Single steps in turn, as timed before, gave
V3-Small 1.44 on two threads and 1.80 on one; steps in a row 1.54 on two.)

A call adds its cases to today's results: ``python -m benchmarks.training --networks NAME --threads NUMBER`` makes one.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import multiprocessing
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks._results import ROOT, write_results
from mnv3search.architecture import Architecture
from mnv3search.families import published
from mnv3search.network.build import build_network, prepare_for_training
from mnv3search.network.fast_gradients import FastGradientConv2d
from mnv3search.space import load_space

PUBLISHED, SPACES = ("mobilenet_v3_small", "mobilenet_v3_large"), ("mnv3_small_32",)
WARM_UP = 1  # rounds that are not counted
STEPS = 5  # of a turn
Timings = dict[str, dict[str, float]]


@dataclasses.dataclass(frozen=True)
class Way:
    """One way to train: torchvision's network, or this project's with some of what prepares it."""

    name: str
    own: bool = True
    depthwise: bool = False
    pointwise: bool = False
    activations: bool = False
    fused: bool = False


def ways() -> Iterator[Way]:
    """The plain loop, then this project's network with one change more each time."""
    yield Way("torchvision, plain loop", own=False)
    way = Way("own network, plain loop")
    yield way
    for change, name in (
        ("depthwise", "+ depthwise gradients"),
        ("pointwise", "+ 1×1 as matrix products"),
        ("activations", "+ activations that need no copy"),
        ("fused", "+ fused SGD: as mnv3search train"),
    ):
        way = dataclasses.replace(way, **{"name": name, change: True})  # type: ignore[arg-type]
        yield way


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    every = PUBLISHED + SPACES
    parser.add_argument("--networks", nargs="+", default=list(every), choices=every)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args()


def architecture_of(name: str, side: int) -> Architecture:
    """A published network for ten classes, or the reference of a space."""
    if name in SPACES:
        return load_space(name).reference
    return dataclasses.replace(published(name, resolution=side), classes=10)


def network_of(way: Way, name: str, side: int) -> nn.Module:
    """The network of ``name`` as ``way`` trains it."""
    if not way.own:
        import torchvision

        theirs: nn.Module = getattr(torchvision.models, name)(num_classes=10)
        return theirs.to(memory_format=torch.channels_last)
    plain = build_network(architecture_of(name, side))
    in_place = {n for n, module in plain.named_modules() if getattr(module, "inplace", False)}
    network = prepare_for_training(plain)
    for module_name, module in network.named_modules():
        if isinstance(module, FastGradientConv2d):
            if not (way.depthwise if module.groups > 1 else way.pointwise):
                module.__class__ = nn.Conv2d  # type: ignore[assignment]
        elif module_name in in_place and not way.activations:
            module.inplace = True
    return network


def take_steps(way: Way, name: str, args: argparse.Namespace, threads: int, turns: Connection) -> None:
    """In a process of its own: steps and the mean of their seconds for every True that comes, until False."""
    torch.set_num_threads(threads)
    torch.manual_seed(args.seed)
    images = torch.randn(args.batch, 3, args.side, args.side).to(memory_format=torch.channels_last)
    labels = torch.randint(10, (args.batch,))
    network = network_of(way, name, args.side).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9, fused=way.fused or None)
    while turns.recv():
        for step in range(STEPS):
            if step == 1:
                start = time.perf_counter()
            optimizer.zero_grad()
            functional.cross_entropy(network(images), labels).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        turns.send((time.perf_counter() - start) / (STEPS - 1))


@contextmanager
def workers(listed: Sequence[Way], name: str, args: argparse.Namespace, threads: int) -> Iterator[list[Connection]]:
    """A waiting process for each way, at the other end of a pipe."""
    context = multiprocessing.get_context("fork")  # torch is imported once, and has started no threads here
    pipes = [context.Pipe() for _ in listed]
    processes = [
        context.Process(target=take_steps, args=(way, name, args, threads, theirs), daemon=True)
        for way, (_, theirs) in zip(listed, pipes, strict=True)
    ]
    for process in processes:
        process.start()
    yield [mine for mine, _ in pipes]
    for (mine, _), process in zip(pipes, processes, strict=True):
        mine.send(False)
        process.join()


def timed(name: str, args: argparse.Namespace, threads: int) -> Timings:
    """Images/s, ratio to the first way, and the ratio's quartiles over rounds, of each way."""
    listed = [way for way in ways() if way.own or name in PUBLISHED]
    seconds = np.empty((args.rounds, len(listed)))
    with workers(listed, name, args, threads) as connections:
        for turn in range(-WARM_UP, args.rounds):
            for column, connection in enumerate(connections):
                connection.send(True)
                seconds[max(turn, 0), column] = connection.recv()
    ratios = seconds[:, :1] / seconds
    low, middle, high = np.quantile(ratios, [0.25, 0.5, 0.75], axis=0)
    rates = args.batch / np.median(seconds, axis=0)
    return {
        way.name: {"images_per_second": float(r), "ratio": float(m), "ratio_25": float(a), "ratio_75": float(b)}
        for way, r, m, a, b in zip(listed, rates, middle, low, high, strict=True)
    }


def table(found: Mapping[str, Timings]) -> str:
    """Markdown, a row for each way."""
    lines = ["| network, threads | way | images/s | ratio | quartiles of the ratio |", "|---|---|---|---|---|"]
    lines += [
        f"| {case} | {way} | {t['images_per_second']:.0f} |"
        f" {t['ratio']:.2f} | {t['ratio_25']:.2f}–{t['ratio_75']:.2f} |"
        for case, timings in sorted(found.items())
        for way, t in timings.items()
    ]
    return "\n".join(lines)


def cases_of_today() -> dict[str, Timings]:
    """What earlier calls of today found."""
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    numbers = ROOT / "results" / f"{today}-training" / "numbers.json"
    if not numbers.exists():
        return {}
    cases: dict[str, Timings] = json.loads(numbers.read_text(encoding="utf-8"))["cases"]
    return cases


def main() -> None:
    """Time the cases one by one, and add each to today's table as soon as it is there."""
    args = arguments()
    for threads in args.threads:
        for name in args.networks:
            case = f"{name}, {threads}"
            found = cases_of_today() | {case: timed(name, args, threads)}
            print(table({case: found[case]}), flush=True)
            title = f"# Steps of training, batch {args.batch}, {args.side}×{args.side}"
            write_results("training", {"cases": found}, f"{title}\n\n{table(found)}\n\n{__doc__}", seeds=[args.seed])


if __name__ == "__main__":
    main()
