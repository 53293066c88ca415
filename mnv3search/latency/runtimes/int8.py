"""Graphs in 8 bits, as they are deployed: static quantisation with QuantizeLinear and DequantizeLinear (QDQ).

By onnxruntime's quantiser: weights int8, symmetric, one scale an output channel; activations uint8, one scale a tensor,
from the smallest and largest value on a few random images, the timed one among them. Input and output stay fp32. What
has no 8-bit kernel (h-swish, hard sigmoid) runs in fp32 between two conversions, as it does when deployed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from mnv3search.errors import MeasurementError, MissingDependencyError
from mnv3search.graph import INPUT_NAME
from mnv3search.latency.runtimes.base import (
    IMAGE_SEED,
    Precision,
    Subject,
    graph_of,
    import_onnxruntime,
    input_shape,
)

CALIBRATION_SEEDS = (IMAGE_SEED, IMAGE_SEED + 1, IMAGE_SEED + 2)
_PREPARED = ("onnx.quant.pre_process", "onnxruntime.quant")  # norms are folded and shapes known: nothing to prepare


def graph_in(subject: Subject, precision: Precision) -> bytes:
    """The serialised ONNX model of ``subject`` in this precision.

    Raises:
        MissingDependencyError: onnx is not installed, or for ``int8`` onnxruntime.
        MeasurementError: the quantiser refuses the graph.
    """
    return int8_graph_of(subject) if precision == "int8" else graph_of(subject)


def int8_graph_of(subject: Subject) -> bytes:
    """:func:`graph_of` ``subject``, quantised; about 0.1 s for a unit and 2 s for a large network.

    Raises:
        MissingDependencyError: onnx or onnxruntime is not installed.
        MeasurementError: the quantiser refuses the graph.
    """
    try:
        import_onnxruntime()
        from onnxruntime import quantization
    except ImportError:
        raise MissingDependencyError("onnxruntime", "int8") from None
    import onnx

    model = onnx.load_from_string(graph_of(subject))
    onnx.helper.set_model_props(model, dict([_PREPARED]))
    with tempfile.TemporaryDirectory(prefix="mnv3search-") as folder:
        path = Path(folder) / "int8.onnx"
        try:
            quantization.quantize_static(
                model, path, _CalibrationImages(subject), quant_format=quantization.QuantFormat.QDQ, per_channel=True,
                activation_type=quantization.QuantType.QUInt8, weight_type=quantization.QuantType.QInt8,
                extra_options={"WeightSymmetric": True, "ActivationSymmetric": False},
            )  # fmt: skip
        except Exception as error:  # the quantiser raises whatever its steps do
            raise MeasurementError(f"onnxruntime cannot quantise the graph of {subject}: {error}") from None
        return path.read_bytes()


class _CalibrationImages:
    """Hands the quantiser one image after the other, as its ``CalibrationDataReader`` does, and then None."""

    def __init__(self, subject: Subject) -> None:
        self._images: Iterator[dict[str, Any]] = (
            {INPUT_NAME: np.random.default_rng(seed).standard_normal(input_shape(subject), dtype=np.float32)}
            for seed in CALIBRATION_SEEDS
        )

    def get_next(self) -> dict[str, Any] | None:
        return next(self._images, None)
