"""The training loop: a recipe's epochs over images, each evaluated, the best kept, every step repeatable.

Ctrl-C is answered between steps, so that what is saved is whole.
"""

from __future__ import annotations

import hashlib
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, Self

from mnv3search.architecture import to_mapping
from mnv3search.errors import DivergedError, RunError, TrainingError
from mnv3search.training.data.images import LabelledImages
from mnv3search.training.data.splits import DataSplits, fingerprint
from mnv3search.training.devices import MAX_SEED, own_randomness, process_count
from mnv3search.training.progress import SilentProgress, TrainingProgress, duration_text, speed_text
from mnv3search.training.state import (
    LAST,
    Counters,
    EpochRecord,
    all_tensors,
    digest,
    load_state,
    restore_network,
    restore_optimiser,
    save_state,
    tensors_of,
    write_history,
)
from mnv3search.training.steps import Steps, plain_copy, recipe_settings
from mnv3search.training.trained import BEST, TrainedNetwork, load_trained, save_trained
from mnv3search.training.workload import Freeze, check_data

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mnv3search.network.build import MobileNetwork
    from mnv3search.training.data.preprocessing import Preprocessing
    from mnv3search.training.recipe import Recipe

HISTORY = "history.csv"
SAVE_EVERY_S = 300.0
NOTED_EPOCH_S = 5.0
COST_STEPS, LEAST_COST_S = 5, 10.0  # steps that a training's time is estimated from; shorter ones are not noted
_REMEDY = "lower the learning rate, lengthen the warm-up or set clip_norm"
OnEpoch = Callable[[EpochRecord], bool | None]


class Interruption:
    """Within it a first SIGINT only sets ``asked``; a second one raises ``KeyboardInterrupt`` at once.

    Outside the main thread, where Python lets no handler be set, an interrupt raises as ever.
    """

    def __init__(self) -> None:
        self.asked = False
        self._before: Any = None

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *raised: object) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True


@dataclass(frozen=True, slots=True, eq=False)
class TrainingResult:
    """The result of a training."""

    trained: TrainedNetwork  # of the best epoch by validation top-1 (of averaged weights where there is an average)
    history: tuple[EpochRecord, ...]
    seconds: float  # of the whole call, evaluation included
    images: int  # trained on in all epochs
    stopped: bool = False  # whether on_epoch ended it early


def train_network(
    network: MobileNetwork, data: DataSplits | tuple[LabelledImages, LabelledImages], recipe: Recipe, *,
    preprocessing: Preprocessing, seed: int = 0, folder: str | Path | None = None, resume: bool = False,
    freeze: Freeze = "none", teacher: nn.Module | None = None, workers: int = 0,
    progress: TrainingProgress | None = None, on_epoch: OnEpoch | None = None,
) -> TrainingResult:  # fmt: skip
    """Train ``network`` in place by ``recipe`` and keep the best epoch's weights.

    Under ``torchrun`` or ``accelerate launch`` every process calls this with the same arguments; the first one writes.

    Args:
        network: with the weights to begin from and as many logits as there are classes.
        data: training and validation images.
        recipe: how.
        preprocessing: of the images, stored with the trained network.
        seed: of the images' order and transforms, and of dropout. One seed gives the same weights, bit for bit, on one
            machine with one number of threads.
        folder: where ``best.safetensors``, ``last.safetensors`` (the state to resume from) and ``history.csv`` are
            written. None keeps all in memory.
        resume: continue from ``last.safetensors`` in ``folder``, to the same weights as undisturbed.
        freeze: ``features``: only the classifier learns, and norms keep their statistics.
        teacher: a network of the same classes to learn from as well as from the labels.
        workers: threads that decode large images ahead.
        progress: of stages and steps.
        on_epoch: called after each epoch; True ends the training there.

    Raises:
        DataError: images that this network cannot learn from.
        DivergedError: a loss that is not finite: the step, the rate and the last good checkpoint.
        TrainingError: a recipe that this machine cannot train by, a seed out of its range, or ``resume`` without a
            folder.
        RunError: ``folder`` cannot be written, or its state is damaged or another training's.
        KeyboardInterrupt: Ctrl-C, after the running step and with the state saved.
    """
    if folder == "":
        raise RunError("the path of the training's folder is empty; give one, or None to write no files")
    if folder is not None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
    train, val = (data.train, data.val) if isinstance(data, DataSplits) else data
    if not 0 <= seed <= MAX_SEED:
        raise TrainingError(f"seed {seed!r} must be from 0 to {MAX_SEED}")
    check_data(network, train, val)
    if resume and folder is None:
        raise TrainingError("resume needs the folder of the training to resume")
    most = min(recipe.batch_size, len(train))
    recipe = replace(recipe, batch_size=most - most % process_count())
    asked: dict[str, Any] = {  # what decides the weights, in plain values
        "architecture": to_mapping(network.architecture),
        "classes": list(train.classes),
        "train images": _digest(train),
        "validation images": _digest(val),
        "recipe": recipe.to_mapping(),
        "preprocessing": preprocessing.to_mapping(),
        "seed": seed,
        "freeze": freeze,
        "teacher": teacher is not None,
    }
    state = None
    if resume and folder is not None:
        state = load_state(folder / LAST, asked)
        restore_network(folder / LAST, network, state[1])  # before the features of frozen layers are computed
    facts: dict[str, object] = {"train_images": fingerprint(train)}
    if isinstance(data, DataSplits) and data.held_out:
        facts["held_out"] = data.held_out
    progress = progress or SilentProgress()
    with own_randomness(), recipe_settings(network, recipe):
        steps = Steps(
            network, train, val, recipe, preprocessing, seed=seed, freeze=freeze, teacher=teacher, workers=workers,
            progress=progress,
        )  # fmt: skip
        training = _Training(steps, folder, asked, train.classes, preprocessing, facts, progress)
        if state is not None:
            training.restore(*state)
        try:
            with Interruption() as interruption:
                return training.run(interruption, on_epoch)
        finally:
            steps.release()


class _Training:
    """Epoch after epoch around :class:`Steps`: evaluating, keeping the best, saving the state."""

    def __init__(
        self, steps: Steps, folder: Path | None, asked: dict[str, Any], classes: tuple[str, ...],
        preprocessing: Preprocessing, facts: dict[str, object], progress: TrainingProgress,
    ) -> None:  # fmt: skip
        self.steps, self.folder, self.asked, self.progress = steps, folder, asked, progress
        self.classes, self.preprocessing, self.facts = classes, preprocessing, facts
        self.best: TrainedNetwork | None = None
        self.saved = "no checkpoint was written yet"
        self.saved_at = time.monotonic()
        self._first = 0.0

    def restore(self, counters: Counters, tensors: Mapping[str, Tensor]) -> None:
        """Continue from the folder's state, whose weights the network has already."""
        assert self.folder is not None
        steps = self.steps
        steps.counters = counters
        restore_optimiser(self.folder / LAST, steps.optimiser, tensors)
        if steps.average is not None:
            steps.average.load(tensors_of(tensors, "average"))
        if counters.scaler is not None and steps.accelerator.scaler is not None:
            steps.accelerator.scaler.load_state_dict(counters.scaler)
        if counters.history:
            self.best = load_trained(self.folder / BEST)
        self._note_saved()

    def run(self, interruption: Interruption, on_epoch: OnEpoch | None) -> TrainingResult:
        """All epochs that are left."""
        steps, began, stopped = self.steps, time.perf_counter(), False
        counters, epochs = steps.counters, steps.recipe.epochs
        before = counters.epoch * steps.steps + counters.step
        self.progress.stage("training", epochs * steps.steps - before)
        if not counters.history and not counters.step:
            self.save()  # so that an interrupt within the first steps leaves something to resume from
        while counters.epoch < epochs and not stopped:
            try:
                self._epoch(interruption, before)
                record = self._evaluated()
                self._keep(record)
            except DivergedError as error:
                raise DivergedError(f"{error}; {self.saved}; {_REMEDY}") from None
            if on_epoch is not None:
                stopped = bool(on_epoch(record))
            self._stop_if(interruption)
        assert self.best is not None
        images = len(counters.history) * steps.steps * steps.recipe.batch_size
        return TrainingResult(self.best, tuple(counters.history), time.perf_counter() - began, images, stopped)

    def _epoch(self, interruption: Interruption, before: int) -> None:
        counters, steps = self.steps.counters, self.steps
        for done in steps.epoch():
            speed = done * steps.recipe.batch_size / max(counters.seconds, 1e-9)
            loss = counters.loss_sum / max(counters.seen, 1)
            best = f", best {max(r.val_top1 for r in counters.history):.2f} %" if counters.history else ""
            self.progress.advance(
                counters.epoch * steps.steps + done - before,
                f"epoch {counters.epoch + 1} of {steps.recipe.epochs}, loss {loss:.3f}, {speed_text(speed)}{best}",
            )
            self._note_cost(counters.epoch * steps.steps + done - before)
            self._stop_if(interruption)
            if time.monotonic() - self.saved_at > SAVE_EVERY_S:
                self.save()

    def _note_cost(self, done: int) -> None:
        """Note once, after a few steps whose first is left out, how long the remaining steps will take."""
        steps, counters, now = self.steps, self.steps.counters, time.perf_counter()
        if done == 1:
            self._first = now
        if done != COST_STEPS or steps.steps * steps.recipe.epochs <= COST_STEPS:
            return
        each = (now - self._first) / (COST_STEPS - 1)
        left = (steps.recipe.epochs - counters.epoch) * steps.steps - counters.step
        if left * each >= LEAST_COST_S:
            self.progress.note(
                f"about {duration_text(left * each)} of training on this machine: {left:,} steps of "
                f"{steps.recipe.batch_size} images at {speed_text(steps.recipe.batch_size / each)}, evaluation apart"
            )

    def _stop_if(self, interruption: Interruption) -> None:
        if interruption.asked:
            self.save()
            raise KeyboardInterrupt

    def _evaluated(self) -> EpochRecord:
        counters, steps = self.steps.counters, self.steps
        metrics = steps.evaluate()
        return EpochRecord(
            epoch=counters.epoch + 1,
            learning_rate=steps.rate_at(counters.epoch, steps.steps - 1),
            train_loss=counters.loss_sum / max(counters.seen, 1),
            val_top1=metrics.top1,
            val_top5=metrics.top5,
            val_loss=metrics.loss,
            seconds=counters.seconds,
            images_per_second=steps.steps * steps.recipe.batch_size / max(counters.seconds, 1e-9),
        )

    def _keep(self, record: EpochRecord) -> None:
        """Keep the epoch's network if it is the best, then its state: in this order a crash loses neither."""
        counters, steps = self.steps.counters, self.steps
        if self.best is None or record.rank > max(r.rank for r in counters.history):
            self.best = self._trained(record)
            if self.folder is not None and steps.is_main:
                save_trained(self.folder / BEST, self.best)
        counters.history.append(record)
        counters.epoch, counters.step = counters.epoch + 1, 0
        counters.loss_sum, counters.seen, counters.seconds = 0.0, 0, 0.0
        self.save()
        if self.folder is not None and steps.is_main:
            write_history(self.folder / HISTORY, counters.history)
        if record.seconds >= NOTED_EPOCH_S:
            self.progress.note(
                f"epoch {record.epoch} of {steps.recipe.epochs}: loss {record.train_loss:.3f}, validation top-1 "
                f"{record.val_top1:.2f} %, {speed_text(record.images_per_second)}"
            )

    def _trained(self, record: EpochRecord) -> TrainedNetwork:
        facts = {
            "val_accuracy": record.val_top1, "val_top5": record.val_top5, "val_loss": record.val_loss,
            "epoch": record.epoch, "epochs": self.steps.recipe.epochs, "recipe": self.steps.recipe.name,
            "seed": self.asked["seed"], **self.facts,
        }  # fmt: skip
        network = plain_copy(self.steps.evaluated).cpu().requires_grad_(requires_grad=True)
        return TrainedNetwork(network.architecture, network, self.classes, self.preprocessing, facts)

    def save(self) -> None:
        """Write the state, whole or not at all; weights that are not finite never replace the last good ones."""
        steps = self.steps
        steps.check_losses()
        self.saved_at = time.monotonic()
        if self.folder is None or not steps.is_main:
            return
        if not all(bool(p.isfinite().all()) for p in steps.network.parameters()):
            raise DivergedError("the weights are no longer finite")
        scaler = steps.accelerator.scaler
        steps.counters.scaler = None if scaler is None else scaler.state_dict()
        tensors = all_tensors(steps.network, steps.average.tensors if steps.average else None, steps.optimiser)
        if self.best is not None and steps.fixed:  # which its file holds, whichever epoch is the best
            fixed = {name: tensors.pop(name) for name in (f"network.{name}" for name in steps.fixed)}
            steps.counters.features = steps.counters.features or digest(fixed)
        save_state(self.folder / LAST, self.asked, steps.counters, tensors)
        self._note_saved()

    def _note_saved(self) -> None:
        counters = self.steps.counters
        assert self.folder is not None
        self.saved = (
            f"the last good checkpoint is {self.folder / LAST} (epoch {counters.epoch + 1}, after {counters.step} of "
            f"{self.steps.steps} steps)"
        )


def _digest(images: LabelledImages) -> str:
    """The number of images and a hash of their names and labels."""
    found = hashlib.blake2b(digest_size=8)
    for file, label in zip(images.files, images.labels.tolist(), strict=True):
        found.update(f"{label}\0{file}\0".encode("utf-8", "surrogateescape"))
    return f"{len(images)} images, {found.hexdigest()}"
