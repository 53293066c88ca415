"""Steps of a training against a plain loop of torch, written out by the papers' formulas."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors import safe_open
from torch import nn
from torch.nn.functional import cross_entropy
from training_fakes import PREPROCESSING, RECIPE, splits, tiny_network, weights_of

from mnv3search.training.data.augmentation import Augmentation
from mnv3search.training.data.batches import Batches
from mnv3search.training.devices import step_seed
from mnv3search.training.distillation import Teacher
from mnv3search.training.loop import train_network
from mnv3search.training.progress import SilentProgress
from mnv3search.training.steps import Steps, recipe_settings

EPOCHS, STEPS, SEED = 2, 6, 3
PLAIN = replace(
    RECIPE, epochs=EPOCHS, dropout=0.5, clip_norm=0.3, ema_decay=0.5, augmentation=Augmentation(flip=True),
    weight_decay=0.01,
)  # fmt: skip


def plain_loop() -> tuple[dict[str, torch.Tensor], dict[str, torch.Tensor]]:
    """The weights and their average after all steps of ``PLAIN``: warm-up of half an epoch, then cosine to 0."""
    train, network = splits()[0], tiny_network().train()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
            module.momentum = 0.1
    network.head.dropout.p = 0.5
    wide = [p for p in network.parameters() if p.dim() > 1]
    narrow = [p for p in network.parameters() if p.dim() <= 1]
    groups = [{"params": wide, "weight_decay": 0.01}, {"params": narrow, "weight_decay": 0.0}]
    optimiser = torch.optim.SGD(groups, lr=1.0, momentum=0.9, nesterov=True)
    batches = Batches(train, PREPROCESSING, 8, augmentation=PLAIN.augmentation, seed=SEED, shuffle=True, drop_last=True)
    average, done = weights_of(network), 0
    for epoch in range(EPOCHS):
        for number, batch in enumerate(batches.epoch(epoch)):
            passed = epoch + (number + 0.5) / STEPS
            rate = 0.1 * passed / 0.5 if passed < 0.5 else 0.1 * (1 + math.cos(math.pi * (passed - 0.5) / 1.5)) / 2
            for group in optimiser.param_groups:
                group["lr"] = rate
            torch.manual_seed(step_seed(SEED, epoch, number, 0))
            optimiser.zero_grad()
            loss = cross_entropy(network(batch.images), batch.labels, label_smoothing=0.1)
            loss.backward()  # type: ignore[no-untyped-call]
            torch.nn.utils.clip_grad_norm_(network.parameters(), 0.3)
            optimiser.step()
            done += 1
            decay = min(0.5, (1 + done) / (10 + done))
            for name, now in network.state_dict().items():
                average[name] = decay * average[name] + (1 - decay) * now if now.is_floating_point() else now.clone()
    return weights_of(network), average


def test_steps_are_those_of_a_plain_loop() -> None:
    network = tiny_network()
    with torch.random.fork_rng([]), recipe_settings(network, PLAIN):
        steps = Steps(
            network, *splits(), PLAIN, PREPROCESSING, seed=SEED, freeze="none", teacher=None, workers=0,
            progress=SilentProgress(),
        )  # fmt: skip
        for epoch in range(EPOCHS):
            steps.counters.epoch, steps.counters.step = epoch, 0
            assert list(steps.epoch()) == [1, 2, 3, 4, 5, 6]
        assert steps.average is not None
        weights, average = plain_loop()
    for found, expected in ((weights_of(network), weights), (steps.average.tensors, average)):
        assert found.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.allclose(found[name], tensor, rtol=1e-4, atol=1e-5), name


def test_the_rate_of_an_epochs_record_is_that_of_its_last_step() -> None:
    recipe = replace(RECIPE, epochs=2, warmup_epochs=0)
    history = train_network(tiny_network(), splits(), recipe, preprocessing=PREPROCESSING).history
    passed = [(epoch + 5.5 / 6) / 2 for epoch in range(2)]
    expected = [0.1 * (1 + math.cos(math.pi * share)) / 2 for share in passed]
    assert [record.learning_rate for record in history] == pytest.approx(expected)


class Constant(nn.Module):
    """The same logits for all images."""

    def __init__(self, logits: list[float]) -> None:
        super().__init__()
        self.logits = torch.tensor(logits)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(len(images), -1)


def test_a_teachers_loss_by_hand() -> None:
    recipe = replace(RECIPE, distillation_temperature=4.0, distillation_share=0.3)
    teacher, student = [2.0, 0.0, -1.0], np.array([[0.5, 1.0, 0.0], [3.0, -2.0, 1.0]])

    def soft(logits: NDArray[np.float64]) -> NDArray[np.float64]:
        raised = np.exp(logits / 4.0)
        shares: NDArray[np.float64] = raised / raised.sum(axis=-1, keepdims=True)
        return shares

    p, q = soft(np.array(teacher)), soft(student)
    expected = 0.7 * 1.25 + 0.3 * 16 * float((p * np.log(p / q)).sum(axis=1).mean())
    found = Teacher(Constant(teacher), recipe, 3).loss(
        torch.zeros(2, 3, 4, 4), torch.tensor(student), torch.tensor(1.25, dtype=torch.float64)
    )
    assert abs(float(found) - expected) < 1e-6


def test_a_state_says_what_was_asked_as_states_always_did(tmp_path: Path) -> None:
    """A training that an earlier release began is resumed only where these are the same to the letter."""
    train_network(tiny_network(), splits(), replace(RECIPE, epochs=1), preprocessing=PREPROCESSING, folder=tmp_path)
    with safe_open(tmp_path / "last.safetensors", framework="pt") as state:
        content = json.loads(state.metadata()["mnv3search"])
    assert (content["format"], content["version"]) == ("mnv3search.training_state", 1)
    assert content["asked"]["train images"] == "48 images, beaa16c96984b3fd"
    assert content["asked"]["validation images"] == "24 images, dfaa35b5a054f574"
    assert content["asked"]["preprocessing"] == {
        "resolution": 12, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "crop_share": 0.875,
        "interpolation": "bilinear",
    }  # fmt: skip
    assert sorted(content["asked"]) == [
        "architecture", "classes", "freeze", "preprocessing", "recipe", "seed", "teacher", "train images",
        "validation images",
    ]  # fmt: skip
    assert sorted(content["counters"]) == [
        "epoch", "features", "history", "loss_sum", "scaler", "seconds", "seen", "step",
    ]  # fmt: skip
