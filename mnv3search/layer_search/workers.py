"""Proposals scored here or in processes beside one another: one thread of a CPU each, or one GPU each.

A score does not depend on who computes it, so any number of workers finds the same network.
"""

from __future__ import annotations

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from mnv3search.architecture import Architecture
from mnv3search.errors import TrainingError
from mnv3search.layer_search.scoring import (
    OnImages,
    Planned,
    Score,
    ShortTerm,
    fine_tune_speed,
    score_network,
    score_proposal,
)
from mnv3search.threads import allowed_cores

if TYPE_CHECKING:
    from mnv3search.training.data.images import LabelledImages
    from mnv3search.training.trained import TrainedNetwork

MAX_WORKERS = 256
TOLD_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Scored:
    """One proposal's score and its network."""

    number: int
    score: Score
    trained: TrainedNetwork


class Workers(Protocol):
    """Whoever scores proposals."""

    def score(self, before: TrainedNetwork, step: int, proposals: Sequence[tuple[int, Planned]]) -> Iterator[Scored]:
        """Scores (number, proposal) pairs of a step, each as soon as it is done, in any order."""
        ...

    def score_seed(self, trained: TrainedNetwork) -> Score:
        """Scores a network as it is."""
        ...

    @property
    def count(self) -> int:
        """How many proposals are scored at a time."""
        ...

    def speed(self, trained: TrainedNetwork) -> float:
        """Images a second of one proposal's fine-tune, from a few steps of ``trained``."""
        ...


class Here:
    """Scores proposals in this process, one after the other."""

    count = 1

    def __init__(
        self, train: LabelledImages, held: LabelledImages, short: ShortTerm, device: str = "cpu",
        on_images: OnImages | None = None,
    ) -> None:  # fmt: skip
        self.train, self.held, self.short, self.device, self.on_images = train, held, short, device, on_images

    def score(self, before: TrainedNetwork, step: int, proposals: Sequence[tuple[int, Planned]]) -> Iterator[Scored]:
        """As :class:`Workers`."""
        for number, planned in proposals:
            score, after = score_proposal(
                before, planned.architecture, step, number, self.train, self.held, self.short, self.device,
                self.on_images,
            )  # fmt: skip
            yield Scored(number, score, after)

    def score_seed(self, trained: TrainedNetwork) -> Score:
        """As :class:`Workers`."""
        return score_network(trained, self.held, self.device, self.on_images)

    def speed(self, trained: TrainedNetwork) -> float:
        """As :class:`Workers`."""
        return fine_tune_speed(trained, self.train, self.short, self.device)


class Beside:
    """Scores proposals in processes of their own; made by :func:`workers_for`, which ends them."""

    def __init__(self, pool: ProcessPoolExecutor, here: Here, count: int, seen: Any) -> None:
        self._pool, self._here, self.count, self._seen, self._told = pool, here, count, seen, 0

    def score(self, before: TrainedNetwork, step: int, proposals: Sequence[tuple[int, Planned]]) -> Iterator[Scored]:
        """As :class:`Workers`.

        Raises:
            TrainingError: a process has ended, most likely for want of memory.
        """
        state = _tensors(before)
        tasks = {
            self._pool.submit(_score_there, state, before.architecture, planned.architecture, step, number): planned
            for number, planned in proposals
        }
        try:
            waiting = set(tasks)
            while waiting:
                done, waiting = wait(waiting, timeout=TOLD_EVERY_S, return_when=FIRST_COMPLETED)
                self._tell()
                yield from (self._scored(before, task, tasks[task]) for task in done)
        except BrokenProcessPool:
            raise TrainingError(
                "a process that scores proposals has ended, most likely for want of memory; go on with fewer --workers"
            ) from None

    def _tell(self) -> None:
        """Pass on how many images all processes have seen since this was last done; none, while they start."""
        seen = sum(self._seen)
        if self._here.on_images is not None:
            self._here.on_images(seen - self._told)
        self._told = seen

    @staticmethod
    def _scored(before: TrainedNetwork, task: Future[tuple[int, Score, bytes]], planned: Planned) -> Scored:
        number, score, state = task.result()
        return Scored(number, score, _with_tensors(before, planned.architecture, state))

    def score_seed(self, trained: TrainedNetwork) -> Score:
        """As :class:`Workers`; in this process, on a CPU or GPU as the others'."""
        return self._here.score_seed(trained)

    def speed(self, trained: TrainedNetwork) -> float:
        """As :class:`Workers`; in this process, on a CPU or GPU as the others'."""
        return self._here.speed(trained)


@contextmanager
def workers_for(
    trained: TrainedNetwork, train: LabelledImages, held: LabelledImages, short: ShortTerm, workers: int | None = None,
    on_images: OnImages | None = None,
) -> Iterator[Workers]:  # fmt: skip
    """Workers for proposals of ``trained`` and its narrowings; their processes end with the context, whatever ends it.

    Args:
        trained: gives classes and preprocessing.
        train: images to learn from.
        held: images to be judged on.
        short: the fine-tune.
        workers: processes; None for one a GPU, or one a core where there is no GPU. One works in this process.
        on_images: called in this process, at least once a second.

    Raises:
        TrainingError: ``workers`` is not 1 to 256.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    count = (gpus or min(allowed_cores(), MAX_WORKERS)) if workers is None else workers
    if not 1 <= count <= MAX_WORKERS:
        raise TrainingError(f"{count!r} workers; give 1 to {MAX_WORKERS}")
    here = Here(train, held, short, "cuda:0" if gpus else "cpu", on_images)
    if count == 1:
        yield here
        return
    context = multiprocessing.get_context("spawn")  # a fork of a process that runs torch's threads may hang
    others = set(multiprocessing.active_children())
    seen = context.RawArray("q", count)  # of each process its own, so that none waits for a lock of one that was killed
    first = (train, held, short, trained.classes, trained.preprocessing, gpus, context.Value("i", 0), seen)
    pool = ProcessPoolExecutor(count, context, initializer=_begin, initargs=first)
    try:
        yield Beside(pool, here, count, seen)
    except BaseException:
        pool.shutdown(wait=False, cancel_futures=True)
        for process in set(multiprocessing.active_children()) - others:
            process.terminate()  # what is under way is lost anyway, and may take minutes
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


_HERE: dict[str, Any] = {}
"""What a process was begun with."""


def _begin(
    train: LabelledImages, held: LabelledImages, short: ShortTerm, classes: tuple[str, ...], preprocessing: Any,
    gpus: int, begun: Any, seen: Any,
) -> None:  # fmt: skip
    threading.Thread(target=_end_with_parent, daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's to answer
    with begun.get_lock():
        place, begun.value = begun.value, begun.value + 1

    def on_images(count: int) -> None:
        seen[place] += count

    _HERE["worker"] = Here(train, held, short, f"cuda:{place % gpus}" if gpus else "cpu", on_images)
    _HERE["about"] = (classes, preprocessing)


def _end_with_parent() -> None:
    """Ends this process as soon as the one that started it has ended, whatever ended that: its end of a pipe closes.

    A pool's processes hold the queue that they wait at open among themselves, so none of them would notice.
    """
    parent = multiprocessing.parent_process()
    assert parent is not None
    multiprocessing.connection.wait([parent.sentinel])
    os._exit(1)


def _score_there(
    state: bytes, before: Architecture, architecture: Architecture, step: int, number: int
) -> tuple[int, Score, bytes]:
    from mnv3search.training.trained import TrainedNetwork

    if _HERE.get("bytes") != state:  # the network before, once a step
        classes, preprocessing = _HERE["about"]
        _HERE["bytes"], _HERE["before"] = state, TrainedNetwork(before, _network(before, state), classes, preprocessing)
    worker: Here = _HERE["worker"]
    score, after = score_proposal(
        _HERE["before"], architecture, step, number, worker.train, worker.held, worker.short, worker.device,
        worker.on_images,
    )  # fmt: skip
    return number, score, _tensors(after)


def _tensors(trained: TrainedNetwork) -> bytes:
    from safetensors.torch import save

    return bytes(save({name: tensor.cpu().contiguous() for name, tensor in trained.network.state_dict().items()}))


def _with_tensors(before: TrainedNetwork, architecture: Architecture, state: bytes) -> TrainedNetwork:
    from dataclasses import replace

    return replace(before, architecture=architecture, network=_network(architecture, state), facts={})


def _network(architecture: Architecture, state: bytes) -> Any:
    import torch
    from safetensors.torch import load

    from mnv3search.network.build import MobileNetwork

    with torch.device("meta"):
        network = MobileNetwork(architecture)
    network.load_state_dict(load(state), assign=True)
    return network.eval()
