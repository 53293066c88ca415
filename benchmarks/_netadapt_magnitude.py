"""Torch-Pruning's part of the benchmark: its global magnitude pruner, cut to the latency that NetAdapt came to."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks._netadapt_setup import RESOLUTION, Budget, Records, data, recipe
from benchmarks._netadapt_training import train_and_judge
from mnv3search.architecture import Architecture
from mnv3search.blocks import BlockSpec
from mnv3search.latency.measured.table_device import TableDevice

if TYPE_CHECKING:
    from mnv3search.network.build import MobileNetwork
    from mnv3search.training.trained import TrainedNetwork

RATIOS = tuple(round(float(ratio), 3) for ratio in np.arange(0.06, 0.74, 0.04))


def pruned(base: TrainedNetwork, ratio: float) -> MobileNetwork:
    """The base with a share ``ratio`` of all channels cut away, those of least group magnitude over all layers.

    Channels are rounded to 8; the classifier's classes stay; everything else is torch-pruning's default.
    """
    import torch
    import torch_pruning as tp

    from mnv3search.network.build import MobileNetwork
    from mnv3search.training.steps import plain_copy

    network = plain_copy(base.network).requires_grad_(True)
    pruner = tp.pruner.MagnitudePruner(
        network, torch.zeros(1, 3, RESOLUTION, RESOLUTION), importance=tp.importance.GroupMagnitudeImportance(p=2),
        global_pruning=True, pruning_ratio=ratio, round_to=8, ignored_layers=[network.head.classifier],
    )  # fmt: skip
    pruner.step()
    found = MobileNetwork(architecture_of(network, base.architecture))
    found.load_state_dict({name: tensor.detach().clone() for name, tensor in network.state_dict().items()})
    return found.eval()


def architecture_of(network: Any, before: Architecture) -> Architecture:
    """The architecture of a network whose layers were cut in place."""
    stem = replace(before.stem, out_channels=network.stem.conv.out_channels)
    blocks: list[BlockSpec] = []
    entered = (before.stem.out_channels, *(block.out_channels for block in before.blocks))
    into = stem.out_channels
    for module, block, old_in in zip(network.blocks, before.blocks, entered, strict=False):
        se = block.squeeze_excite
        made = replace(
            block, expanded_channels=module.depthwise.conv.out_channels,
            out_channels=module.projection.conv.out_channels,
            squeeze_excite=se and replace(se, squeeze_channels=module.squeeze_excite.reduce.out_channels),
            expansion="always" if hasattr(module, "expansion") else "where_needed",
        )  # fmt: skip
        if hasattr(module, "expansion") and made.expanded_channels != into:
            made = replace(made, expansion=block.expansion)
        if made.has_residual(into) and not block.has_residual(old_in):
            made = replace(made, shortcut="none")
        blocks.append(made)
        into = made.out_channels
    feature = network.head.feature.conv.out_channels
    return replace(before, stem=stem, blocks=tuple(blocks), head=replace(before.head, feature_channels=feature))


def choose_ratios(work: Path, budget: Budget) -> None:
    """Time what every ratio gives beside NetAdapt's networks, and keep for each target the ratio of equal latency.

    Of the two ratios around NetAdapt's latency it is the nearer one: the pruner may come out slower than NetAdapt.
    """
    from mnv3search.training.trained import load_trained

    records = Records(work)
    if "ratios" in records.known:
        return
    base = load_trained(work / "base")
    networks = {f"{ratio:g}": pruned(base, ratio).architecture for ratio in RATIOS}
    aims = {f"netadapt-{t:g}": load_trained(work / f"netadapt-{t:g}").architecture for t in budget.targets}
    everyone = {**networks, **aims}
    times = TableDevice(cache_dir=work / "table").measure(list(everyone.values()))
    found = {name: time.latency_ms for name, time in zip(everyone, times, strict=True)}
    chosen = {
        name: min(networks, key=lambda ratio: abs(found[ratio] - found[name]))
        for name in aims
    }  # fmt: skip
    assert all(float(a) < float(b) for a, b in pairwise(networks))
    records.keep("ratios", latency_ms=found, chosen=chosen)


def prune_by_magnitude(work: Path, budget: Budget, seed: int) -> None:
    """Prune the base to each target's latency and fine-tune with NetAdapt's budget after the base, rounded up."""
    from mnv3search.training.trained import load_trained

    choose_ratios(work, budget)
    base, splits, records = load_trained(work / "base"), data(), Records(work)
    for target in budget.targets:
        ratio = float(records.known["ratios"]["chosen"][f"netadapt-{target:g}"])
        spent = records.known[f"netadapt-{target:g}"]["proposal_images"]
        epochs = budget.long_epochs + -(-spent // len(splits.train))
        train_and_judge(
            f"pruner-{target:g}", pruned(base, ratio), splits, recipe(epochs, budget.long_rate), seed, work, records,
            target=target, ratio=ratio,
        )  # fmt: skip
