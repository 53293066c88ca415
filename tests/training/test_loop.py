"""The training loop: it learns, keeps the best, goes on bit for bit after any interruption, and says why it stops."""

from __future__ import annotations

import csv
import errno
import json
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from training_fakes import PREPROCESSING, RECIPE, images, same_weights, splits, tiny_network, weights_of

from mnv3search.blocks import BlockSpec
from mnv3search.errors import DataError, DivergedError, RunError, TrainingError
from mnv3search.network.weights_file import read_safetensors
from mnv3search.training import loop
from mnv3search.training.data.augmentation import Augmentation
from mnv3search.training.evaluation import Metrics, evaluate_network
from mnv3search.training.loop import TrainingResult, train_network
from mnv3search.training.progress import SilentProgress
from mnv3search.training.recipe import Recipe
from mnv3search.training.state import EpochRecord
from mnv3search.training.steps import Steps
from mnv3search.training.trained import load_trained, save_trained

STEPS = 6  # 48 images in batches of 8


def train(recipe: Recipe = RECIPE, *, network: Any = None, **options: Any) -> TrainingResult:
    network = network if network is not None else tiny_network()
    return train_network(network, splits(), recipe, preprocessing=PREPROCESSING, **options)


class InterruptAt(SilentProgress):
    """Ctrl-C while a step of a training is being reported."""

    def __init__(self, step: int) -> None:
        self.step = step

    def advance(self, done: int, detail: str = "", total: int | None = None) -> None:
        if done == self.step:
            signal.raise_signal(signal.SIGINT)


def test_it_learns_and_keeps_the_best_epoch(tmp_path: Path) -> None:
    recipe = replace(
        RECIPE, epochs=8, optimizer="adamw", learning_rate=0.01, ema_decay=None, augmentation=Augmentation(flip=True)
    )
    result = train(recipe, folder=tmp_path)
    best = max(result.history, key=lambda record: record.rank)
    assert [record.epoch for record in result.history] == [*range(1, 9)]
    assert best.val_top1 > 80
    assert result.trained.facts["epoch"] == best.epoch
    assert result.images == 8 * 48
    evaluated = evaluate_network(result.trained.network, splits()[1], PREPROCESSING)
    assert evaluated.top1 == best.val_top1
    assert evaluated.loss == pytest.approx(best.val_loss, rel=1e-6)
    kept = load_trained(tmp_path)
    assert same_weights(weights_of(kept.network), weights_of(result.trained.network))
    assert kept.classes == ("class_0", "class_1", "class_2")
    with (tmp_path / "history.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["val_top1"]) for row in rows] == pytest.approx([r.val_top1 for r in result.history], rel=1e-5)


def test_an_empty_text_is_not_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match=r"^the path of the training's folder is empty; give one, or None"):
        train(folder="")
    assert not list(tmp_path.iterdir())


def test_of_epochs_with_the_same_top_1_that_of_the_lower_loss_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluate, found = Steps.evaluate, [(50.0, 1.0), (50.0, 0.8), (50.0, 0.9), (40.0, 0.1)]

    def scored(steps: Steps) -> Metrics:
        top1, loss = found[steps.counters.epoch]
        return replace(evaluate(steps), top1=top1, loss=loss)

    monkeypatch.setattr(Steps, "evaluate", scored)
    recipe = replace(RECIPE, epochs=4)
    folders = [tmp_path / "whole", tmp_path / "cut"]
    for folder in folders:
        folder.mkdir()
    assert train(recipe, folder=folders[0]).trained.facts["epoch"] == 2
    with pytest.raises(KeyboardInterrupt):
        train(recipe, folder=folders[1], progress=InterruptAt(2 * STEPS + 1))  # the best so far is then on disk alone
    assert train(recipe, folder=folders[1], resume=True).trained.facts["epoch"] == 2
    kept = [(folder / "best.safetensors").read_bytes() for folder in folders]
    assert kept[0] == kept[1]


def test_one_seed_gives_one_network_and_the_programs_randomness_stays() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, other = (weights_of(train(replace(RECIPE, epochs=1)).trained.network) for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert same_weights(one, other)
    assert not same_weights(one, weights_of(train(replace(RECIPE, epochs=1), seed=1).trained.network))


@pytest.mark.parametrize("optimiser", ["sgd", "rmsprop_tf", "adamw"])
@pytest.mark.parametrize("step", [STEPS, STEPS + 4], ids=["at an epoch's end", "within an epoch"])
def test_an_interrupted_training_goes_on_bit_for_bit(tmp_path: Path, optimiser: Any, step: int) -> None:
    recipe = replace(RECIPE, optimizer=optimiser, learning_rate=0.1 if optimiser == "sgd" else 0.01)
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    network = tiny_network()
    whole = train(recipe, network=network, folder=tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(recipe, folder=tmp_path / "cut", progress=InterruptAt(step))
    fresh = tiny_network(seed=9)
    resumed = train(recipe, network=fresh, folder=tmp_path / "cut", resume=True)
    assert same_weights(weights_of(network), weights_of(fresh))
    assert (tmp_path / "whole" / "best.safetensors").read_bytes() == (
        tmp_path / "cut" / "best.safetensors"
    ).read_bytes()
    figures = [[(r.epoch, r.train_loss, r.val_top1, r.val_loss) for r in one.history] for one in (whole, resumed)]
    assert figures[0] == figures[1]


def test_a_finished_training_is_resumed_to_the_same_result(tmp_path: Path) -> None:
    recipe = replace(RECIPE, epochs=1)
    first, again = train(recipe, folder=tmp_path), train(recipe, folder=tmp_path, resume=True)
    assert again.history == first.history
    assert same_weights(weights_of(again.trained.network), weights_of(first.trained.network))


def test_an_interrupt_in_the_first_step_leaves_a_state(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(folder=tmp_path, progress=InterruptAt(1))
    assert train(folder=tmp_path, resume=True).history[-1].epoch == RECIPE.epochs


def test_a_state_of_another_training_is_refused(tmp_path: Path) -> None:
    train(replace(RECIPE, epochs=1), folder=tmp_path)
    with pytest.raises(RunError, match="its recipe was"):
        train(replace(RECIPE, epochs=1, momentum=0.5), folder=tmp_path, resume=True)
    with pytest.raises(RunError, match="its seed was 0 and is now 4"):
        train(replace(RECIPE, epochs=1), folder=tmp_path, resume=True, seed=4)


@pytest.mark.parametrize("damage", [lambda b: b[: len(b) // 2], lambda b: b"", lambda b: b"\x80\x04pickle" * 9])
def test_a_damaged_state_is_refused(tmp_path: Path, damage: Callable[[bytes], bytes]) -> None:
    train(replace(RECIPE, epochs=1), folder=tmp_path)
    last = tmp_path / "last.safetensors"
    last.write_bytes(damage(last.read_bytes()))
    with pytest.raises(RunError, match="damaged"):
        train(replace(RECIPE, epochs=1), folder=tmp_path, resume=True)


def test_a_loss_that_is_nan_says_step_rate_and_checkpoint(tmp_path: Path) -> None:
    recipe = replace(RECIPE, learning_rate=500.0, warmup_epochs=0, schedule="constant", reference_batch=1)
    with pytest.raises(DivergedError, match=r"(loss is (nan|inf)|weights are no longer finite).*") as caught:
        train(recipe, folder=tmp_path)
    words = str(caught.value)
    assert "epoch" in words
    assert "last good checkpoint" in words
    assert "last.safetensors" in words


@pytest.mark.parametrize("seed", [-1, 2**32, 10**30])
def test_a_seed_out_of_its_range_is_refused_before_anything_is_written(tmp_path: Path, seed: int) -> None:
    with pytest.raises(TrainingError, match=f"seed {seed} must be from 0 to 4294967295"):
        train(folder=tmp_path, seed=seed)
    assert not list(tmp_path.iterdir())


def test_the_step_and_rate_of_a_nan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from mnv3search.training import steps

    counted: list[int] = []

    def loss(logits: torch.Tensor, labels: torch.Tensor, smoothing: float) -> torch.Tensor:
        counted.append(1)
        return logits.sum() * (float("nan") if len(counted) == STEPS + 3 else 0.0)

    monkeypatch.setattr(steps, "batch_loss", loss)
    constant = replace(RECIPE, schedule="constant", warmup_epochs=0.0)
    with pytest.raises(DivergedError, match=r"nan at step 3 of 6 in epoch 2, at a learning rate of 0\.1;.*last good"):
        train(constant, folder=tmp_path)


def test_a_full_disk_leaves_the_state_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(KeyboardInterrupt):
        train(folder=tmp_path, progress=InterruptAt(2))
    before = (tmp_path / "last.safetensors").read_bytes()

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(RunError, match=r"No space left on device.*intact"):
            train(folder=tmp_path, resume=True)
    assert (tmp_path / "last.safetensors").read_bytes() == before
    assert list(tmp_path.glob("*.part*")) == []
    assert train(folder=tmp_path, resume=True).history[-1].epoch == RECIPE.epochs


def test_frozen_features_stay_and_the_classifier_learns() -> None:
    network = tiny_network()
    before = weights_of(network)
    train(replace(RECIPE, epochs=1), network=network, freeze="features")
    changed = {name for name, tensor in weights_of(network).items() if not torch.equal(tensor, before[name])}
    assert changed == {"head.classifier.weight", "head.classifier.bias"}


def test_cached_features_give_what_the_whole_network_gives(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(RECIPE, augmentation=Augmentation(), dropout=0.0, epochs=2, batch_size=48)  # one batch: no order
    notes: list[str] = []
    progress = SilentProgress()
    monkeypatch.setattr(progress, "note", notes.append)
    cached = train(recipe, freeze="features", progress=progress)
    assert any("computed once" in note for note in notes)
    monkeypatch.setattr("mnv3search.training.workload.MOST_CACHED_BYTES", 0)
    whole = train(recipe, freeze="features")
    for name, tensor in weights_of(cached.trained.network).items():
        torch.testing.assert_close(tensor, weights_of(whole.trained.network)[name], rtol=1e-4, atol=1e-6)
    assert cached.history[-1].val_loss == pytest.approx(whole.history[-1].val_loss, rel=1e-4)


FROZEN = replace(RECIPE, augmentation=Augmentation())


def interrupted(folder: Path, step: int = STEPS + 2) -> Path:
    """A training of the classifier on frozen features that was stopped after ``step`` steps; its state."""
    with pytest.raises(KeyboardInterrupt):
        train(FROZEN, freeze="features", folder=folder, progress=InterruptAt(step))
    return folder / "last.safetensors"


@pytest.mark.parametrize("step", [2, STEPS + 2], ids=["before the first epoch's end", "after it"])
def test_cached_features_go_on_bit_for_bit(tmp_path: Path, step: int) -> None:
    whole = train(FROZEN, freeze="features")
    interrupted(tmp_path, step)
    resumed = train(FROZEN, network=tiny_network(seed=9), freeze="features", folder=tmp_path, resume=True)
    assert same_weights(weights_of(whole.trained.network), weights_of(resumed.trained.network))
    assert whole.history[-1].val_loss == resumed.history[-1].val_loss


def test_an_epoch_on_frozen_features_writes_no_body_unless_it_is_the_best(tmp_path: Path) -> None:
    body = (BlockSpec(3, 512, 64), BlockSpec(3, 512, 64), BlockSpec(3, 512, 16))
    network = tiny_network(blocks=body)
    recipe = replace(FROZEN, epochs=12, learning_rate=0.5, schedule="constant", ema_decay=None)
    stamps: dict[Path, int] = {}
    best, written = list[bool](), list[int]()

    def after(record: EpochRecord) -> None:
        files = [tmp_path / name for name in ("best.safetensors", "last.safetensors")]
        now = {file: file.stat().st_mtime_ns for file in files}
        best.append(now[files[0]] != stamps.get(files[0]))
        written.append(sum(file.stat().st_size for file in files if now[file] != stamps.get(file)))
        stamps.update(now)

    result = train(recipe, network=network, freeze="features", folder=tmp_path, on_epoch=after)
    whole = sum(tensor.numel() * tensor.element_size() for tensor in network.state_dict().values())
    ranks = [record.rank for record in result.history]
    assert best == [rank > max(ranks[:number], default=(-1.0, 0.0)) for number, rank in enumerate(ranks)]
    assert not all(best)
    assert max(size for size, kept in zip(written, best, strict=True) if not kept) < whole / 20
    assert max(written) < whole * 1.1


def test_a_state_that_holds_its_frozen_features_itself_is_taken_up_too(tmp_path: Path) -> None:
    last = interrupted(tmp_path)
    tensors, metadata = read_safetensors(last)
    for name, tensor in read_safetensors(tmp_path / "best.safetensors")[0].items():
        tensors.setdefault(f"network.{name}", tensor)
    content = json.loads(metadata["mnv3search"])
    assert content["counters"].pop("features")
    save_file(tensors, last, {"mnv3search": json.dumps(content)})
    resumed = train(FROZEN, network=tiny_network(seed=9), freeze="features", folder=tmp_path, resume=True)
    whole = train(FROZEN, freeze="features")
    assert same_weights(weights_of(whole.trained.network), weights_of(resumed.trained.network))


def test_frozen_features_that_are_others_or_gone_are_refused(tmp_path: Path) -> None:
    interrupted(tmp_path)
    best = tmp_path / "best.safetensors"
    save_trained(best, replace(load_trained(best), network=tiny_network(seed=9)))
    with pytest.raises(RunError, match="other features than those"):
        train(FROZEN, freeze="features", folder=tmp_path, resume=True)
    best.unlink()
    with pytest.raises(RunError, match=r"frozen features in best\.safetensors, but cannot read"):
        train(FROZEN, freeze="features", folder=tmp_path, resume=True)


def test_a_teacher_is_learnt_from() -> None:
    teacher = tiny_network(seed=3).eval()
    recipe = replace(RECIPE, distillation_share=1.0, augmentation=Augmentation(), epochs=4, ema_decay=None)
    taught, alone = train(recipe, teacher=teacher), train(recipe)
    pixels = PREPROCESSING.to_tensor(np.stack([splits()[1].read(i) for i in range(24)]))

    def distance(result: TrainingResult) -> float:
        with torch.no_grad():
            mine, theirs = (net(pixels).softmax(1) for net in (result.trained.network, teacher))
        return float((mine - theirs).abs().mean())

    assert distance(taught) < 0.5 * distance(alone)


def test_a_teacher_of_other_classes() -> None:
    with pytest.raises(TrainingError, match="teacher has 5 classes and the student 3"):
        train(teacher=tiny_network(classes=5))


def test_a_callback_ends_the_training() -> None:
    seen: list[EpochRecord] = []

    def after(record: EpochRecord) -> bool:
        seen.append(record)
        return record.epoch == 2

    result = train(on_epoch=after)
    assert result.stopped
    assert list(result.history) == seen
    assert len(seen) == 2


def test_recipe_settings_last_as_long_as_the_training() -> None:
    network = tiny_network()
    momenta: set[float] = set()

    def look(record: EpochRecord) -> None:
        momenta.add(network.stem.norm.momentum or 0)
        assert network.head.dropout.p == 0.5

    train(replace(RECIPE, epochs=1, dropout=0.5), network=network, on_epoch=look)
    assert momenta == {0.1}
    assert (network.stem.norm.momentum, network.head.dropout.p) == (0.01, 0.2)


def test_fewer_images_than_a_batch() -> None:
    result = train(replace(RECIPE, batch_size=4096, reference_batch=4096, epochs=2))
    assert result.images == 2 * 48


def test_images_of_other_classes() -> None:
    with pytest.raises(DataError, match="4 classes, but the network has 3 logits"):
        train_network(tiny_network(), (images(4, classes=4), images(4, classes=4)), RECIPE, preprocessing=PREPROCESSING)


def test_one_class() -> None:
    one = images(4, classes=1)
    with pytest.raises(DataError, match="one class"):
        train_network(tiny_network(classes=1), (one, one), RECIPE, preprocessing=PREPROCESSING)


def test_a_state_is_saved_within_long_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved: list[int] = []
    monkeypatch.setattr(loop, "SAVE_EVERY_S", 0.0)
    monkeypatch.setattr(loop, "save_state", lambda path, asked, counters, tensors: saved.append(counters.step))
    train(replace(RECIPE, epochs=1), folder=tmp_path)
    assert saved == [0, 1, 2, 3, 4, 5, 6, 0]


def test_gradients_are_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = replace(RECIPE, clip_norm=1e-9, optimizer="sgd", weight_decay=0.0, epochs=1, ema_decay=None)
    network = tiny_network()
    before = weights_of(network)
    train(recipe, network=network)
    torch.testing.assert_close(network.head.classifier.weight, before["head.classifier.weight"], rtol=0, atol=1e-8)


def test_fp16_needs_a_gpu() -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(TrainingError, match="fp16 needs a CUDA device"):
        train(replace(RECIPE, precision="fp16"))


def test_bf16_where_it_is_asked_for() -> None:
    network = tiny_network()
    result = train(replace(RECIPE, precision="bf16", epochs=1, ema_decay=None), network=network)
    assert "forward" not in vars(network)
    assert {t.dtype for t in weights_of(result.trained.network).values()} == {torch.float32, torch.int64}


def test_steps_expose_what_is_trained() -> None:
    steps = Steps(
        tiny_network(), *splits(), RECIPE, PREPROCESSING, seed=0, freeze="none", teacher=None, workers=0,
        progress=SilentProgress(),
    )  # fmt: skip
    assert steps.steps == STEPS
    assert list(steps.epoch()) == [1, 2, 3, 4, 5, 6]
