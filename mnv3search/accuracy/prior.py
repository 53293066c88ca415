"""The ImageNet prior: predicts top-1 from an architecture's structure alone.

One Gaussian process over structural features is fitted to three sources at once (by ``benchmarks/prior.py``):
once-for-all's subnets, Accel-NASBench's networks after a short training, and published networks. They share the effects
of structure; each source has an offset, and the published networks a deviation.

Effects of structure add up in the logarithm of the error, not in top-1: half as many channels cost three times as many
points at 50 % as at 75 %. The process has linear coordinates and those of inducing points in feature space (Snelson and
Ghahramani 2006); what these do not explain is added to the variance.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from importlib.resources import files
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnv3search.accuracy.evaluator import Capabilities, Evaluation
from mnv3search.accuracy.prior_features import FEATURE_NAMES, FloatArray, features
from mnv3search.architecture import Architecture
from mnv3search.blocks import BlockSpec
from mnv3search.cost import count
from mnv3search.errors import EvaluatorError, UnknownNameError
from mnv3search.reading import parse_json, read_bounded
from mnv3search.records import UNREADABLE
from mnv3search.threads import on_one_blas_thread

FORMAT = "mnv3search-imagenet-prior"
VERSION = 2
PRIOR_FILE = "imagenet_prior.json"
PUBLISHED = "published"
IMAGENET_CLASSES = 1000
RECIPES: Mapping[str, str] = MappingProxyType(
    {
        PUBLISHED: "ImageNet top-1",
        "once_for_all": "top-1 of the once-for-all supernet's subnet",
        "accel_nasbench": "top-1 after Accel-NASBench's short training",
    }
)
"""What the prior predicts, by recipe: networks as published, as subnets of a supernet, after a short training."""
_BATCH = 4096
_LIMITS = (0.1, 99.9)
_MAX_BYTES = 64_000_000
_REMEDY = "restore the file that mnv3search ships, or fit it again with benchmarks/prior.py --write"
JITTER = 1e-6
REFERENCE_ERROR = 25.0  # percent of error at which a unit of the scale is a point of top-1: MobileNetV3-Large's
LOWEST = 40.0  # percent of top-1 below which no network was fitted
_ROUNDING = 0.02  # a width rounded to 8 channels is no new ratio
Range = tuple[float, float]


def to_top1(scale: FloatArray) -> FloatArray:
    """Top-1 in percent of the scale on which effects add, ``-25 ln(error / 25)``; below 40 % it falls slower, to 0."""
    error = REFERENCE_ERROR * np.exp(-scale / REFERENCE_ERROR)
    tail = LOWEST * (np.maximum(error, 100.0 - LOWEST) / (100.0 - LOWEST)) ** ((LOWEST - 100.0) / LOWEST)
    return np.asarray(np.where(error > 100.0 - LOWEST, tail, 100.0 - error), dtype=np.float64)


def slope(top1: FloatArray) -> FloatArray:
    """Points of top-1 for a unit of the scale, at ``top1``."""
    steepness = np.where(top1 < LOWEST, top1 * (100.0 - LOWEST) / LOWEST, 100.0 - top1)
    return np.asarray(steepness / REFERENCE_ERROR, dtype=np.float64)


def squared_distances(left: FloatArray, right: FloatArray) -> FloatArray:
    """Squared Euclidean distances between the rows of (n, d) and (m, d); shape (n, m)."""
    squares = (left * left).sum(axis=1)[:, None] + (right * right).sum(axis=1)[None, :]
    return np.asarray(np.maximum(squares - 2.0 * left @ right.T, 0.0), dtype=np.float64)


@dataclass(frozen=True)
class Basis:
    """Features of a network as the process's coordinates.

    Attributes:
        center, scale: of the raw features; ``x = (raw - center) / scale``; shape (d,).
        relevance: by which distances between networks are measured, shape (d,).
        linear_scale: prior scale of each linear coefficient, shape (d,).
        inducing: points in coordinates scaled by relevance, shape (m, d).
    """

    center: FloatArray
    scale: FloatArray
    relevance: FloatArray
    linear_scale: FloatArray
    inducing: FloatArray

    def whitener(self) -> FloatArray:
        """The inverse Cholesky factor of the inducing points' covariance, transposed; shape (m, m)."""
        covariance = np.exp(-0.5 * squared_distances(self.inducing, self.inducing))
        factor = np.linalg.cholesky(covariance + JITTER * np.eye(len(covariance)))
        return np.asarray(np.linalg.inv(factor).T, dtype=np.float64)

    def coordinates(self, raw: FloatArray, whitener: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Linear coordinates (n, d) and bend coordinates (n, m); both have unit prior variance per coefficient."""
        x = (raw - self.center) / self.scale
        bend = np.exp(-0.5 * squared_distances(x * self.relevance, self.inducing)) @ whitener
        return x * self.linear_scale, bend


@dataclass(frozen=True, slots=True)
class OutsideRange:
    """A quantity of a network, its value, and the smallest and largest among the fitted networks."""

    quantity: str
    value: float
    low: float
    high: float

    def __str__(self) -> str:
        fitted = f"{self.low:.4g}" if self.low == self.high else f"{self.low:.4g} to {self.high:.4g}"
        return f"{self.quantity} {self.value:.4g} (fitted: {fitted})"


def quantities(architecture: Architecture) -> dict[str, Range]:
    """What can be out of the fitted range, each with its smallest and largest value within the network."""
    blocks = architecture.blocks
    ins = list(architecture.in_channels())
    ratios = [b.expanded_channels / c for b, c in zip(blocks, ins, strict=True) if b.expanded_channels != c]
    cost, head = count(architecture), architecture.head
    last = head.hidden_channels or head.feature_channels or blocks[-1].out_channels
    values: dict[str, Sequence[float]] = {
        "expansion ratio": ratios,
        "kernel size": [b.kernel_size for b in blocks if b.kind == BlockSpec.kind],
        "channels of a block": [b.out_channels for b in blocks],
        "stem filters": [architecture.stem.out_channels],
        "blocks": [len(blocks)],
        "channels before the classifier": [last],
        "input px": [architecture.resolution],
        "M MAdds": [cost.madds / 1e6],
        "classes": [architecture.classes],
    }
    return {name: (float(min(found)), float(max(found))) for name, found in values.items() if found}


@dataclass(frozen=True)
class RecipeCoefficients:
    """The process as one recipe sees it; d features, m inducing points; the scale is :func:`to_top1`'s.

    Attributes:
        offset: at the origin.
        weights: posterior mean of the coefficients of [1, linear (d), bend (m)].
        covariance_factor: lower Cholesky factor of their posterior covariance (1 + d + m, 1 + d + m), float32.
        bend_variance: prior variance of the bend; counts where the inducing points do not reach.
        noise_variance: of a figure around what structure explains, as held-out figures near the fitted ones ask.
        spread_scale: factor on the process's own deviation, as held-out figures far from the fitted ones ask.
        fitted: ranges of the fitted networks.
    """

    offset: float
    weights: FloatArray
    covariance_factor: NDArray[np.float32]
    bend_variance: float
    noise_variance: float
    spread_scale: float
    fitted: Mapping[str, Range]


@dataclass(frozen=True)
class PriorCoefficients:
    """Coordinates, and the recipes by name."""

    basis: Basis
    whitener: FloatArray
    recipes: Mapping[str, RecipeCoefficients]

    def predict(self, raw: FloatArray, recipe: str) -> tuple[FloatArray, FloatArray]:
        """Top-1 and its standard deviation in points, for raw features (n, d); shapes (n,)."""
        of = self.recipes[recipe]
        linear, bend = self.basis.coordinates(raw, self.whitener)
        design = np.concatenate([np.ones((len(raw), 1)), linear, bend], axis=1)
        spread = design.astype(np.float32) @ of.covariance_factor  # single precision suffices for a deviation
        unreached = of.bend_variance * np.maximum(1.0 - np.einsum("nm,nm->n", bend, bend), 0.0)
        own = np.einsum("ns,ns->n", spread, spread).astype(np.float64) + unreached
        top1 = np.clip(to_top1(of.offset + design @ of.weights), *_LIMITS)
        return top1, slope(top1) * np.sqrt(of.noise_variance + of.spread_scale**2 * own)


class ImagenetPrior:
    """An evaluator that needs no data, no training and no torch: the default of the ImageNet spaces.

    Its answers are predictions, not measurements: ``top1`` in percent, and ``top1_std``, one predictive standard
    deviation in points, which grows away from the networks that it was fitted to.
    """

    def __init__(self, path: Path | None = None, *, recipe: str = PUBLISHED) -> None:
        """The prior that ships, read at its first use, or another of the same format at ``path``.

        Args:
            path: another file of coefficients.
            recipe: one of ``RECIPES``: networks as they are published (MobileNetV3-Large 75.2), as subnets of the
                once-for-all supernet, or after Accel-NASBench's short training. Answers of different recipes cannot be
                compared.

        Raises:
            UnknownNameError: no such recipe.
        """
        if recipe not in RECIPES:
            raise UnknownNameError("recipe of the ImageNet prior", recipe, RECIPES)
        self._path, self.recipe = path, recipe

    def __repr__(self) -> str:
        return f"ImagenetPrior(recipe={self.recipe!r})"

    @property
    def coefficients(self) -> PriorCoefficients:
        """The fitted coefficients, or EvaluatorError where the file is missing, damaged or of another version."""
        return _read(self._path)

    @cached_property
    def capabilities(self) -> Capabilities:
        """Cheap predictions; coefficients are known by one answer of theirs."""
        from mnv3search.families import parse_network

        answer = self.evaluate([parse_network("mobilenet_v3_large")])[0]
        identity = f"prior with {answer.top1:.6f} for mobilenet_v3_large"
        return Capabilities(cheap=True, estimated=True, identity=identity)

    @on_one_blas_thread
    def evaluate(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
        """Predicted top-1 and deviation of each architecture, in order; both rounded to 1e-6 points."""
        architectures, coefficients = list(architectures), self.coefficients
        answers: list[Evaluation] = []
        for start in range(0, len(architectures), _BATCH):
            top1, std = coefficients.predict(features(architectures[start : start + _BATCH]), self.recipe)
            answers += map(Evaluation, np.round(top1, 6).tolist(), np.round(std, 6).tolist())
        return answers

    def outside_range(self, architecture: Architecture) -> list[OutsideRange]:
        """Where the network lies outside those that this recipe was fitted to; empty where it does not."""
        fitted, found = self.coefficients.recipes[self.recipe].fitted, []
        for name, (low, high) in quantities(architecture).items():
            least, most = fitted.get(name, (low, high))
            if low < least * (1 - _ROUNDING):
                found.append(OutsideRange(name, low, least, most))
            if high > most * (1 + _ROUNDING):
                found.append(OutsideRange(name, high, least, most))
        return found


def recipe_of(evaluator: str) -> str | None:
    """The recipe of an evaluator as the command line names it, ``prior`` or ``prior:RECIPE``; None for any other."""
    name, _, recipe = evaluator.partition(":")
    return (recipe or PUBLISHED) if name == "prior" else None


@lru_cache(maxsize=4)
def _read(path: Path | None) -> PriorCoefficients:
    """The coefficients at ``path``, or those that ship."""
    name = PRIOR_FILE if path is None else str(path)
    try:
        shipped = files("mnv3search.accuracy") / PRIOR_FILE
        content = shipped.read_bytes() if path is None else read_bounded(path, _MAX_BYTES)
    except OSError as error:
        raise EvaluatorError(f"the ImageNet prior cannot be read from {name}: {error}; {_REMEDY}") from error
    return coefficients_from_json(content, name)


def coefficients_from_json(content: bytes | str, name: str) -> PriorCoefficients:
    """The coefficients in ``content``; ``name`` is the file's in messages."""
    try:
        data = parse_json(content)
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise ValueError(f"its format must be {FORMAT!r}")
        if data.get("version") != VERSION:
            raise ValueError(f"it has version {data.get('version')!r}; this mnv3search reads {VERSION}")
        if data.get("features") != list(FEATURE_NAMES):
            raise ValueError("it was fitted to other features")
        return _assembled(data)
    except UNREADABLE as error:
        reason = f"{error} is missing" if isinstance(error, KeyError) else error
        raise EvaluatorError(f"the ImageNet prior {name} cannot be used: {reason}; {_REMEDY}") from error


def _numbers(data: Mapping[str, Any], key: str, shape: tuple[int, ...]) -> FloatArray:
    array = np.array(data[key], dtype=np.float64)
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"{key!r} must be finite numbers of shape {shape}")
    return array


def _triangle(data: Mapping[str, Any], key: str, size: int) -> NDArray[np.float32]:
    """A lower triangular matrix, (size, size): its rows up to the diagonal, half precision, base64."""
    values = np.frombuffer(base64.b64decode(data[key], validate=True), dtype="<f2").astype(np.float32)
    if len(values) != size * (size + 1) // 2 or not np.isfinite(values).all():
        raise ValueError(f"{key!r} must be the triangle of {size} coefficients")
    factor = np.zeros((size, size), dtype=np.float32)
    factor[np.tril_indices(size)] = values
    return factor


def _assembled(data: Mapping[str, Any]) -> PriorCoefficients:
    d, m = len(FEATURE_NAMES), len(data["inducing"])
    vectors = {key: _numbers(data, key, (d,)) for key in ("center", "scale", "relevance", "linear_scale")}
    basis = Basis(**vectors, inducing=_numbers(data, "inducing", (m, d)))
    recipes = {name: _recipe(data["recipes"][name], 1 + d + m) for name in RECIPES}
    return PriorCoefficients(basis, basis.whitener(), recipes)


def _recipe(data: Mapping[str, Any], size: int) -> RecipeCoefficients:
    numbers = ("offset", "bend_variance", "noise_variance", "spread_scale")
    return RecipeCoefficients(
        weights=_numbers(data, "weights", (size,)),
        covariance_factor=_triangle(data, "covariance_factor", size),
        fitted={name: (float(low), float(high)) for name, (low, high) in data["fitted"].items()},
        **{key: float(_numbers(data, key, ())) for key in numbers},
    )
