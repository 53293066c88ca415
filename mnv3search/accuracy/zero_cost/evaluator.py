"""Zero-cost evaluators: a score of each untrained network, for ``--evaluator zero_cost:NAME``."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import TYPE_CHECKING

from mnv3search.accuracy.evaluator import Evaluation
from mnv3search.accuracy.options import WholeNumber, parse_numbers
from mnv3search.architecture import Architecture
from mnv3search.cost import count
from mnv3search.errors import EvaluatorError, UnknownNameError
from mnv3search.threads import on_one_blas_thread

if TYPE_CHECKING:
    from torch import Tensor

    from mnv3search.training.data.images import LabelledImages

OPTIONS: Mapping[str, WholeNumber] = MappingProxyType(
    {
        "images": WholeNumber(None, 2, 512),
        "resolution": WholeNumber(None, 8, 1024),
        "repeats": WholeNumber(1, 1, 64),
        "seed": WholeNumber(0, 0, 2**31 - 1),
    }
)


@dataclass(frozen=True, slots=True)
class Probe:
    """What a network is shown.

    Attributes:
        count: images in the batch.
        resolution: at most; a network of a lower resolution is shown its own.
        seed: of weights and noise.
        images: real ones to choose from, or None for normal noise with labels in turn.
    """

    count: int
    resolution: int
    seed: int
    images: LabelledImages | None = None

    def side(self, architecture: Architecture) -> int:
        """The resolution for one network."""
        return min(self.resolution, architecture.resolution)

    def batch(self, architecture: Architecture) -> tuple[Tensor, Tensor]:
        """Images (N, 3, R, R) and labels (N,)."""
        import torch

        from mnv3search.accuracy.zero_cost.untrained import noise

        side = self.side(architecture)
        if self.images is None:
            return noise(self.count, side, self.seed), torch.arange(self.count) % architecture.classes
        return _real(self.images, self.count, side)


def _real(images: LabelledImages, count: int, side: int) -> tuple[Tensor, Tensor]:
    from mnv3search.training.data.batches import Batches
    from mnv3search.training.data.preprocessing import Preprocessing
    from mnv3search.training.data.splits import stable_subset

    chosen = stable_subset(images, min(len(images), max(count, len(images.classes))), "zero cost")
    # as many of each class as there are: the batch is every so-manieth of them
    places = [round(i * (len(chosen) - 1) / max(count - 1, 1)) for i in range(count)]
    batch = next(iter(Batches(chosen.subset(sorted(set(places))), Preprocessing(side), count).epoch(0)))
    return batch.images, batch.labels


def _naswot(architecture: Architecture, probe: Probe) -> float:
    from mnv3search.accuracy.zero_cost.scores import naswot
    from mnv3search.accuracy.zero_cost.untrained import untrained_network

    return naswot(untrained_network(architecture, probe.seed, "training"), probe.batch(architecture)[0])


def _zen(architecture: Architecture, probe: Probe) -> float:
    from mnv3search.accuracy.zero_cost.scores import zen
    from mnv3search.accuracy.zero_cost.untrained import noise, untrained_network

    images = noise(2 * probe.count, probe.side(architecture), probe.seed)
    network = untrained_network(architecture, probe.seed, "gaussian")
    return zen(network, images[: probe.count], images[probe.count :])


def _synflow(architecture: Architecture, probe: Probe) -> float:
    from mnv3search.accuracy.zero_cost.scores import synflow
    from mnv3search.accuracy.zero_cost.untrained import untrained_network

    return synflow(untrained_network(architecture, probe.seed, "training"), probe.side(architecture))


def _gradient_norm(architecture: Architecture, probe: Probe) -> float:
    from mnv3search.accuracy.zero_cost.scores import gradient_norm
    from mnv3search.accuracy.zero_cost.untrained import untrained_network

    return gradient_norm(untrained_network(architecture, probe.seed, "training"), *probe.batch(architecture))


def _parameters(architecture: Architecture, probe: Probe) -> float:
    return math.log10(count(architecture).parameters)


def _madds(architecture: Architecture, probe: Probe) -> float:
    return math.log10(count(architecture).madds)


@dataclass(frozen=True, slots=True)
class _Score:
    """How a score is computed, what it is shown unless told, and whether it costs nothing to speak of.

    Resolutions are the least at which a network of 224 px is still ordered about as well as at twice as much
    (``benchmarks/evaluators.py``): building the network is then most of the cost.
    """

    compute: Callable[[Architecture, Probe], float]
    label: str
    images: int = 2
    resolution: int = 32
    cheap: bool = False


SCORES: Mapping[str, _Score] = MappingProxyType(
    {
        "naswot": _Score(_naswot, "naswot, log |det K|", images=16),
        "zen": _Score(_zen, "Zen-score", images=8),
        "synflow": _Score(_synflow, "synflow, log₁₀", resolution=64),
        "gradient_norm": _Score(_gradient_norm, "gradient norm, log₁₀", images=16),
        "parameters": _Score(_parameters, "parameters, log₁₀", cheap=True),
        "madds": _Score(_madds, "MAdds, log₁₀", cheap=True),
    }
)


class ZeroCost:
    """Scores untrained networks; higher is better, and no score is an accuracy.

    The same network gets the same score each time, in whatever batch, on one machine with one version of torch.
    """

    estimated = False
    trains = False

    def __init__(
        self, score: str, *, images: int | None = None, resolution: int | None = None, repeats: int = 1, seed: int = 0,
        data: LabelledImages | None = None,
    ) -> None:  # fmt: skip
        """Make one.

        Args:
            score: one of :data:`SCORES`.
            images: in the batch that a network is shown; each score's own where None.
            resolution: of them at most; each score's own where None. A network of a lower one is shown its own.
            repeats: how many draws of weights the score is the mean of.
            seed: of weights and noise.
            data: real images for naswot and gradient_norm; noise where None.

        Raises:
            UnknownNameError: no such score.
        """
        if score not in SCORES:
            raise UnknownNameError("zero-cost score", score, SCORES)
        self.score = score
        self._how = SCORES[score]
        self.score_name = self._how.label
        self.cheap = self._how.cheap
        shown = images or self._how.images, resolution or self._how.resolution, repeats, seed
        self.identity = f"zero_cost:{score} with images, resolution, repeats, seed {shown}"
        if data is not None:
            files = "\0".join(data.files).encode("utf-8", "surrogateescape")
            self.identity += f" on {hashlib.blake2b(files, digest_size=8).hexdigest()}"
        self._probes = [
            Probe(images or self._how.images, resolution or self._how.resolution, seed + repeat, data)
            for repeat in range(repeats)
        ]

    @on_one_blas_thread
    def evaluate(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
        """The score of each, rounded to 1e-6.

        Raises:
            EvaluatorError: a score that is not finite.
        """
        return [Evaluation(self._mean(architecture)) for architecture in architectures]

    def _mean(self, architecture: Architecture) -> float:
        found = [self._how.compute(architecture, probe) for probe in self._probes]
        mean = round(sum(found) / len(found), 6)
        if not math.isfinite(mean):
            raise EvaluatorError(
                f"the zero-cost score {self.score} is {mean} for {architecture}: it cannot order such networks; "
                "choose another score"
            )
        return mean


def zero_cost(text: str, data: LabelledImages | None = None) -> ZeroCost:
    """The evaluator of ``naswot`` or ``naswot,images=64,seed=1``.

    Raises:
        UnknownNameError: no such score or option.
        EvaluatorError: no score is named, or an option is out of its range.
    """
    name, _, options = text.partition(",")
    if not name:
        raise EvaluatorError(f"zero_cost needs a score: give zero_cost: and one of {', '.join(SCORES)}")
    make = partial(ZeroCost, name, data=data)
    return make(**parse_numbers(options, OPTIONS, f"zero_cost:{name}"))  # type: ignore[arg-type]
