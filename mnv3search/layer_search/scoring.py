"""A step of NetAdapt with weights: proposals are scored, and one of them is chosen.

A proposal inherits the sliced weights of the network before, is fine-tuned briefly and scored on held-out images. Its
score is a function of the network before, the proposal, the options and (seed, step, proposal) alone: on a CPU it is
computed on one thread whatever the machine has, so it is the same in any process.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import TYPE_CHECKING

from mnv3search.architecture import Architecture
from mnv3search.errors import TrainingError
from mnv3search.execution import Run, Worker, executor_of
from mnv3search.layer_search.proposals import Plan, Proposal, SelectionRule, selection_value
from mnv3search.threads import allowed_cores
from mnv3search.training.data.augmentation import Augmentation

if TYPE_CHECKING:
    from mnv3search.network.build import MobileNetwork
    from mnv3search.network.slicing import SliceRule
    from mnv3search.training.data.batches import Batches
    from mnv3search.training.data.images import LabelledImages
    from mnv3search.training.data.preprocessing import Preprocessing
    from mnv3search.training.trained import TrainedNetwork


@dataclass(frozen=True, slots=True)
class Score:
    """A network scored on the held-out images.

    Attributes:
        top1: percent.
        loss: mean cross-entropy, nats.
        images: how many scored it.
        trained: images that its fine-tune saw, repeats counted.
        seconds: that both took.
    """

    top1: float
    loss: float
    images: int
    trained: int = 0
    seconds: float = 0.0

    @property
    def top1_std(self) -> float:
        """One standard deviation of ``top1`` in points, binomial: what another draw of as many images would change.

        Of the difference of two networks on the same images it is an upper bound, as most images are right or wrong
        with both.
        """
        share = min(max(self.top1 / 100, 0.5 / self.images), 1 - 0.5 / self.images)
        return 100 * math.sqrt(share * (1 - share) / self.images)


@dataclass(frozen=True, slots=True)
class Choice:
    """The proposal that a step keeps, and how many others the noise of scoring does not part from it."""

    number: int
    rivals: int


def choose(
    plan: Plan, scores: Mapping[int, Score], before: Score, latency_ms: float, rule: SelectionRule
) -> Choice | None:
    """The best of the proposals that are scored; None where none is.

    Equal accuracies are common on few images, so the loss decides between equals: with ``ratio`` by Δloss/|Δlatency|,
    with ``accuracy`` by itself; between equals in that too the first.
    """
    if not scores:
        return None

    def value(number: int, top1: float) -> float:
        return selection_value(rule, top1, plan.proposals[number].latency_ms, (before.top1, latency_ms))

    def key(number: int) -> tuple[float, float]:
        gained = before.loss - scores[number].loss
        second = gained if rule == "accuracy" else gained / (latency_ms - plan.proposals[number].latency_ms)
        return value(number, scores[number].top1), second

    best = max(sorted(scores), key=key)
    highest = key(best)[0]
    return Choice(best, sum(value(n, s.top1 + s.top1_std) >= highest for n, s in scores.items() if n != best))


MAX_STEPS = 1_000_000
MAX_BATCH = 65_536
MAX_WORKERS = 256
SCORED_AT_A_TIME = (64, 256)  # images at a time on a CPU, where progress is to be reported often, and elsewhere
_BATCHES, _DROPOUT = 0, 1  # streams of random numbers


@dataclass(frozen=True, slots=True)
class ShortTerm:
    """The fine-tune of every proposal, and how channels are inherited.

    Attributes:
        steps: T; 0 scores the slices as they are.
        batch_size, learning_rate: of each step; the rate is constant.
        rule: which channels a narrowing keeps: ``l2``, ``first`` or ``norm_scale``.
        augmentation: of the training images.
        seed: of everything random.

    Raises:
        TrainingError: a value out of its range.
    """

    steps: int = 100
    batch_size: int = 64
    learning_rate: float = 0.005
    rule: SliceRule = "l2"
    augmentation: Augmentation = field(default_factory=lambda: Augmentation(flip=True))
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.steps <= MAX_STEPS:
            raise TrainingError(f"a short fine-tune of {self.steps!r} steps; give 0 to {MAX_STEPS:,}")
        if not 1 <= self.batch_size <= MAX_BATCH:
            raise TrainingError(f"batches of {self.batch_size!r} images; give 1 to {MAX_BATCH:,}")
        if not 0 < self.learning_rate <= 10:
            raise TrainingError(f"learning rate {self.learning_rate!r} must be above 0 and at most 10, such as 0.005")
        if not 0 <= self.seed < 2**32:
            raise TrainingError(f"seed {self.seed!r} must be from 0 to {2**32 - 1}")


OnImages = Callable[[int], None]
"""Called with a number of images as soon as they are learned from or scored."""
SPEED_STEPS, SPEED_BATCH = 3, 16  # the first step, which prepares, is not timed


def score_network(
    trained: TrainedNetwork, held: LabelledImages, device: str = "cpu", on_images: OnImages | None = None
) -> Score:
    """``trained`` scored on the held-out images as it is."""
    from mnv3search.training.evaluation import evaluate_network

    reported = 0

    def report(done: int, _: int) -> None:
        nonlocal reported
        if on_images is not None:
            on_images(done - reported)
        reported = done

    with one_thread():
        found = evaluate_network(
            trained.network.to(device), held, trained.preprocessing, batch_size=SCORED_AT_A_TIME[device != "cpu"],
            progress=report,
        )  # fmt: skip
        trained.network.to("cpu")
    return Score(found.top1, found.loss, found.images, seconds=found.seconds)


def score_proposal(
    before: TrainedNetwork, architecture: Architecture, step: int, proposal: int,
    train: LabelledImages, held: LabelledImages, short: ShortTerm, device: str = "cpu",
    on_images: OnImages | None = None,
) -> tuple[Score, TrainedNetwork]:  # fmt: skip
    """``before``, which stays as it is, narrowed to ``architecture``, fine-tuned on ``train``, scored on ``held``.

    The number of the step seeds the images and their order, so that its proposals differ less by chance; the number of
    the proposal seeds the dropout.
    """
    from mnv3search.network.slicing import slice_network
    from mnv3search.training.evaluation import calibrate_norms, calibration_batches
    from mnv3search.training.fine_tune import fine_tune
    from mnv3search.training.steps import plain_copy

    began = time.perf_counter()
    network = slice_network(before.network, architecture, short.rule).to(device)
    trained = 0
    with one_thread():
        if short.steps:
            seeds = [_seed(short.seed, _BATCHES, step), _seed(short.seed, _DROPOUT, step, proposal)]
            size = min(short.batch_size, len(train))
            batches = _batches(before, train, size, short, seeds[0])
            fine_tune(
                network, batches, short.steps, short.learning_rate, seed=seeds[1],
                on_step=None if on_images is None else lambda _: on_images(size),
            )  # fmt: skip
            trained = short.steps * size
        after = replace(before, architecture=architecture, network=plain_copy(network), facts={})
        if short.steps:
            calibrate_norms(after.network, calibration_batches(train, before.preprocessing), on_images)
        found = score_network(after, held, device, on_images)
    return replace(found, trained=trained, seconds=time.perf_counter() - began), after


def _batches(trained: TrainedNetwork, train: LabelledImages, size: int, short: ShortTerm, seed: int) -> Batches:
    from mnv3search.training.data.batches import Batches

    return Batches(
        train, trained.preprocessing, size, augmentation=short.augmentation, seed=seed, shuffle=True, drop_last=True
    )


def fresh_network(architecture: Architecture, seed: int) -> MobileNetwork:
    """A network with new weights that follow from ``seed`` alone: where a narrowing is trained from scratch."""
    import torch

    from mnv3search.network.build import build_network
    from mnv3search.training.devices import own_randomness

    with own_randomness():
        torch.manual_seed(seed)
        return build_network(architecture)


def _seed(*words: int) -> int:
    import numpy as np

    return int(np.random.SeedSequence(words).generate_state(1)[0])


@contextmanager
def one_thread() -> Iterator[None]:
    """Torch on one thread of the CPU: sums are then of one order, and as many processes run as there are cores."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@dataclass(frozen=True, slots=True)
class Scored:
    """One proposal's score and its network."""

    number: int
    score: Score
    trained: TrainedNetwork


@dataclass(frozen=True, slots=True)
class _Task:
    """A proposal to score; ``before`` is the network that it narrows, as safetensors."""

    before: bytes
    before_architecture: Architecture
    architecture: Architecture
    step: int
    number: int


@dataclass(frozen=True, slots=True)
class _Setup:
    """The executor's setup: every worker scores on one thread of a CPU, or on one GPU."""

    train: LabelledImages
    held: LabelledImages
    short: ShortTerm
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    gpus: int

    def __call__(self, worker: Worker) -> Callable[[_Task], tuple[Score, bytes]]:
        from mnv3search.training.trained import TrainedNetwork

        @lru_cache(maxsize=1)  # the network before is the same for all proposals of a step
        def network_before(state: bytes, architecture: Architecture) -> TrainedNetwork:
            return TrainedNetwork(architecture, _network(architecture, state), self.classes, self.preprocessing)

        def score(task: _Task) -> tuple[Score, bytes]:
            before = network_before(task.before, task.before_architecture)
            found, after = score_proposal(
                before, task.architecture, task.step, task.number, self.train, self.held, self.short,
                self.device(worker.number), worker.progress,
            )  # fmt: skip
            return found, _tensors(after)

        return score

    def device(self, number: int) -> str:
        """Torch's device of a worker."""
        return f"cuda:{number % self.gpus}" if self.gpus else "cpu"


class Workers:
    """Scores proposals on an executor; made by :func:`workers_for`.

    A score does not depend on which worker computes it, so any number of workers finds the same network.

    Attributes:
        count: how many proposals are scored at a time.
    """

    def __init__(
        self, run: Run[_Task, tuple[Score, bytes]], setup: _Setup, count: int, on_images: OnImages | None
    ) -> None:
        self._run, self._setup, self.count, self._on_images = run, setup, count, on_images

    def score(self, before: TrainedNetwork, step: int, proposals: Sequence[tuple[int, Proposal]]) -> Iterator[Scored]:
        """Scores (number, proposal) pairs of a step, each as soon as it is done, in any order."""
        state = _tensors(before)
        tasks = [_Task(state, before.architecture, proposal.architecture, step, n) for n, proposal in proposals]
        for position, (score, after) in self._run(tasks):
            number, proposal = proposals[position]
            network = _network(proposal.architecture, after)
            yield Scored(number, score, replace(before, architecture=proposal.architecture, network=network, facts={}))

    def score_seed(self, trained: TrainedNetwork) -> Score:
        """Scores a network as it is, in this process."""
        return score_network(trained, self._setup.held, self._setup.device(0), self._on_images)

    def speed(self, trained: TrainedNetwork) -> float:
        """Images a second of one proposal's fine-tune, from a few steps in this process on a copy of ``trained``."""
        from mnv3search.training.fine_tune import fine_tune
        from mnv3search.training.steps import plain_copy

        train, short = self._setup.train, self._setup.short
        size, times = min(short.batch_size, SPEED_BATCH, len(train)), []
        with one_thread():
            fine_tune(
                plain_copy(trained.network).to(self._setup.device(0)),
                _batches(trained, train, size, short, short.seed), SPEED_STEPS, short.learning_rate, seed=short.seed,
                on_step=lambda _: times.append(time.perf_counter()),
            )  # fmt: skip
        return size * (SPEED_STEPS - 1) / max(times[-1] - times[0], 1e-9)


@contextmanager
def workers_for(
    trained: TrainedNetwork, train: LabelledImages, held: LabelledImages, short: ShortTerm, workers: int | None = None,
    on_images: OnImages | None = None,
) -> Iterator[Workers]:  # fmt: skip
    """Workers for proposals of ``trained`` and its narrowings; their processes end with the context, whatever ends it.

    There are ``workers`` processes; where None one for each GPU, or for each core where there is no GPU. One worker
    works in this process. ``on_images`` is called in this process, at least once a second.
    """
    import torch

    gpus = torch.cuda.device_count() if torch.cuda.is_available() else 0
    count = (gpus or min(allowed_cores(), MAX_WORKERS)) if workers is None else workers
    if not 1 <= count <= MAX_WORKERS:
        raise TrainingError(f"{count!r} workers; give 1 to {MAX_WORKERS}")
    setup = _Setup(train, held, short, trained.classes, trained.preprocessing, gpus)
    with executor_of(count).open(setup, on_images) as run:
        yield Workers(run, setup, count, on_images)


def _tensors(trained: TrainedNetwork) -> bytes:
    from safetensors.torch import save

    return bytes(save({name: tensor.cpu().contiguous() for name, tensor in trained.network.state_dict().items()}))


def _network(architecture: Architecture, state: bytes) -> MobileNetwork:
    import torch
    from safetensors.torch import load

    from mnv3search.network.build import MobileNetwork

    with torch.device("meta"):
        network = MobileNetwork(architecture)
    network.load_state_dict(load(state), assign=True)
    return network.eval()
