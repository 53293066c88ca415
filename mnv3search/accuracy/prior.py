"""The ImageNet prior: predicts top-1, as the paper trains, from an architecture's structure alone.

A Gaussian process over structural features, fitted to three sources at once: once-for-all's subnets, Accel-NASBench's
networks (a short proxy training) and the figures of the papers. Each source has a scale of its own; what ships, and
what :class:`ImagenetPrior` answers in, is the papers' (V3-Large 75.2). ``benchmarks/prior.py`` fits it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mnv3search.accuracy.evaluator import Evaluation
from mnv3search.accuracy.prior_features import FEATURE_NAMES, FloatArray, features
from mnv3search.accuracy.prior_kernel import Basis, widened
from mnv3search.architecture import Architecture
from mnv3search.errors import EvaluatorError
from mnv3search.reading import parse_json, read_bounded, utf8
from mnv3search.threads import on_one_blas_thread

FORMAT = "mnv3search-imagenet-prior"
VERSION = 1
PRIOR_FILE = "imagenet_prior.json"
_BATCH = 4096
_MAX_BYTES = 64_000_000
_REMEDY = "restore the file that mnv3search ships, or fit it again with benchmarks/prior.py --write"


@dataclass(frozen=True)
class PriorCoefficients:
    """The process as the published networks see it; d features, m inducing points.

    Attributes:
        basis: how features become coordinates.
        whitener: of ``basis``, computed once (m, m).
        offset: top-1 at the origin, percent.
        weights: posterior mean of the coefficients of [1, linear (d), bend (m)].
        covariance_factor: lower Cholesky factor of their posterior covariance (1 + d + m, 1 + d + m), float32.
        bend_variance: prior variance of the bend, points²; counts where the inducing points do not reach.
        noise_variance: of a published figure, points².
        far_scale: factor on the deviation far from the published networks, from families left out.
        std_scale: factor on every deviation, from networks left out.
        provenance: sources, licences, row counts, versions, command, date.
    """

    basis: Basis
    whitener: FloatArray
    offset: float
    weights: FloatArray
    covariance_factor: NDArray[np.float32]
    bend_variance: float
    noise_variance: float
    far_scale: float
    std_scale: float
    provenance: Mapping[str, Any]

    def predict(self, raw: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Top-1 and its standard deviation in points, for raw features (n, d); shapes (n,)."""
        linear, bend = self.basis.coordinates(raw, self.whitener)
        design = np.concatenate([np.ones((len(raw), 1)), linear, bend], axis=1)
        spread = design.astype(np.float32) @ self.covariance_factor  # single precision suffices for a deviation
        unreached = self.bend_variance * np.maximum(1.0 - np.einsum("nm,nm->n", bend, bend), 0.0)
        variance = np.einsum("ns,ns->n", spread, spread).astype(np.float64) + unreached + self.noise_variance
        variance = widened(variance, self.noise_variance, self.far_scale)
        return self.offset + design @ self.weights, self.std_scale * np.sqrt(variance)


class ImagenetPrior:
    """An evaluator that needs no data, no training and no torch: the default of the ImageNet spaces.

    Its answers are predictions, not measurements: ``top1`` in percent as the papers train, and ``top1_std``, one
    predictive standard deviation in points, which grows away from the networks that it was fitted to.
    """

    cheap = True
    estimated = True

    def __init__(self, path: Path | None = None) -> None:
        """The prior that ships, read at its first use, or another of the same format at ``path``."""
        self._path = path

    @property
    def coefficients(self) -> PriorCoefficients:
        """The fitted coefficients.

        Raises:
            EvaluatorError: the file is missing, damaged or of another version.
        """
        return _shipped() if self._path is None else _at(self._path)

    @property
    def identity(self) -> str:
        """What answers depend on: coefficients are known by one answer of theirs."""
        from mnv3search.families import parse_network

        answer = self.evaluate([parse_network("mobilenet_v3_large")])[0]
        return f"prior with {answer.top1:.6f} for mobilenet_v3_large"

    @on_one_blas_thread
    def evaluate(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
        """Predicted top-1 and deviation of each architecture, in order; both rounded to 1e-6 points."""
        architectures, coefficients = list(architectures), self.coefficients
        answers: list[Evaluation] = []
        for start in range(0, len(architectures), _BATCH):
            top1, std = coefficients.predict(features(architectures[start : start + _BATCH]))
            top1 = np.clip(top1, 0.1, 99.9)
            answers += map(Evaluation, np.round(top1, 6).tolist(), np.round(std, 6).tolist())
        return answers


@lru_cache(maxsize=1)
def _shipped() -> PriorCoefficients:
    resource = files("mnv3search.accuracy") / PRIOR_FILE
    try:
        text = resource.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise EvaluatorError(f"the ImageNet prior cannot be read from {PRIOR_FILE}: {error}; {_REMEDY}") from error
    return coefficients_from_json(text, PRIOR_FILE)


@lru_cache(maxsize=4)
def _at(path: Path) -> PriorCoefficients:
    try:
        text = utf8(read_bounded(path, _MAX_BYTES))
    except (OSError, ValueError) as error:
        raise EvaluatorError(f"the ImageNet prior cannot be read from {path}: {error}; {_REMEDY}") from error
    return coefficients_from_json(text, str(path))


def coefficients_from_json(text: str, name: str) -> PriorCoefficients:
    """The coefficients in ``text``; ``name`` stands for it in messages.

    Raises:
        EvaluatorError: not JSON, of another format or version, for other features, or with missing or unusable numbers.
    """
    try:
        data = parse_json(text)
    except ValueError as error:
        raise EvaluatorError(f"the ImageNet prior {name} is not valid JSON ({error}); {_REMEDY}") from error
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise EvaluatorError(f"{name} is no ImageNet prior: its format must be {FORMAT!r}; {_REMEDY}")
    if data.get("version") != VERSION:
        raise EvaluatorError(
            f"the ImageNet prior {name} has version {data.get('version')!r}; this mnv3search reads {VERSION}; {_REMEDY}"
        )
    if data.get("features") != list(FEATURE_NAMES):
        raise EvaluatorError(f"the ImageNet prior {name} was fitted to other features; {_REMEDY}")
    try:
        return _assembled(data)
    except (KeyError, TypeError, ValueError, np.linalg.LinAlgError) as error:
        raise EvaluatorError(
            f"the ImageNet prior {name} lacks {error} or holds it in a wrong form; {_REMEDY}"
        ) from error


def _numbers(data: Mapping[str, Any], key: str, shape: tuple[int, ...]) -> FloatArray:
    array = np.array(data[key], dtype=np.float64)
    if array.shape != shape or not np.isfinite(array).all():
        raise ValueError(f"{key!r} as finite numbers of shape {shape}")
    return array


def _assembled(data: Mapping[str, Any]) -> PriorCoefficients:
    d, m = len(FEATURE_NAMES), len(data["inducing"])
    center, scale, relevance, linear = (
        _numbers(data, key, (d,)) for key in ("center", "scale", "relevance", "linear_scale")
    )
    basis = Basis(center, scale, relevance, linear, _numbers(data, "inducing", (m, d)))
    size = 1 + d + m
    factor = np.zeros((size, size), dtype=np.float32)
    factor[np.tril_indices(size)] = _numbers(data, "covariance_factor", (size * (size + 1) // 2,))
    offset, bend, noise, far, scale_of_std = (
        float(_numbers(data, key, ()))
        for key in ("offset", "bend_variance", "noise_variance", "far_scale", "std_scale")
    )
    weights = _numbers(data, "weights", (size,))
    return PriorCoefficients(
        basis, basis.whitener(), offset, weights, factor, bend, noise, far, scale_of_std, data["provenance"]
    )
