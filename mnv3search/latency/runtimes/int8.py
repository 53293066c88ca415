"""Graphs in 8 bits, as they are deployed: static quantisation with QuantizeLinear and DequantizeLinear (QDQ).

By onnxruntime's quantiser: weights int8, symmetric, one scale an output channel; activations uint8, one scale a tensor,
from the values on some inputs. Input and output stay fp32. What has no 8-bit kernel (h-swish, hard sigmoid) runs in
fp32 between two conversions, as it does when deployed.
"""

from __future__ import annotations

import contextlib
import io
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from mnv3search.errors import MeasurementError, MissingDependencyError
from mnv3search.graph import INPUT_NAME
from mnv3search.latency.keys import saturates_in_8_bits
from mnv3search.latency.runtimes.base import IMAGE_SEED, Precision, Subject, graph_of, import_onnxruntime, input_shape

CALIBRATION_SEEDS = (IMAGE_SEED, IMAGE_SEED + 1, IMAGE_SEED + 2)
_PREPARED = ("onnx.quant.pre_process", "onnxruntime.quant")  # norms are folded and shapes known: nothing to prepare
Calibration = Literal["minmax", "percentile", "entropy"]


@dataclass(frozen=True, slots=True)
class Quantisation:
    """How a graph is quantised.

    Attributes:
        calibration: how the range of an activation is found from its values: ``minmax`` keeps all of them,
            ``percentile`` cuts off what lies beyond ``percentile``, ``entropy`` keeps the distribution's information.
        percentile: percent of the values that ``percentile`` keeps, both ends together.
        operators: kinds that work in 8 bits; None for all that the quantiser knows.
        excluded: names of nodes that stay in fp32.
        reduce_range: weights in 7 bits, for x86 processors without VNNI, whose 8-bit kernels saturate at 16 bits.
    """

    calibration: Calibration = "minmax"
    percentile: float = 99.999
    operators: tuple[str, ...] | None = None
    excluded: tuple[str, ...] = ()
    reduce_range: bool = False


def graph_in(subject: Subject, precision: Precision) -> bytes:
    """The serialised ONNX model of ``subject`` in this precision.

    ``int8`` takes about 0.1 s for a unit and 2 s for a large network; a few random images calibrate it, the timed one
    among them.
    """
    if precision == "fp32":
        return graph_of(subject)
    shape = input_shape(subject)
    images = (np.random.default_rng(seed).standard_normal(shape, dtype=np.float32) for seed in CALIBRATION_SEEDS)
    weights = Quantisation(reduce_range=saturates_in_8_bits())  # a call takes as long, and its outputs are right
    return quantised(graph_of(subject), images, str(subject), weights)


def quantised(
    model: bytes, inputs: Iterable[NDArray[Any]], what: str, quantisation: Quantisation = Quantisation()
) -> bytes:
    """The serialised ONNX ``model`` in 8 bits; its norms must be folded already.

    Args:
        model: its only input is ``input``.
        inputs: arrays that ``model`` takes, one call each, over which the ranges of its activations are found; only
            one call's activations are in memory at a time.
        what: names the graph in messages.
        quantisation: how.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        MeasurementError: no inputs, or the quantiser refuses the graph.
    """
    try:
        import_onnxruntime()
        from onnxruntime import quantization
    except ImportError:
        raise MissingDependencyError("onnxruntime", "int8") from None
    import onnx

    reader = _Inputs(inputs)
    if not len(reader):
        raise MeasurementError(f"no inputs were given to calibrate int8 of {what} on; give at least one image")
    loaded = onnx.load_from_string(model)
    onnx.helper.set_model_props(loaded, {p.key: p.value for p in loaded.metadata_props} | dict([_PREPARED]))
    with tempfile.TemporaryDirectory(prefix="mnv3search-") as folder:
        path = Path(folder) / "int8.onnx"
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # two of its methods print what they do
                quantization.quantize_static(loaded, path, reader, **_options(quantization, quantisation))
        except Exception as error:  # the quantiser raises whatever its steps do
            raise MeasurementError(f"onnxruntime cannot quantise the graph of {what}: {error}") from None
        return path.read_bytes()


def _options(quantization: Any, asked: Quantisation) -> dict[str, Any]:
    methods = quantization.CalibrationMethod
    by_name = {"minmax": methods.MinMax, "percentile": methods.Percentile, "entropy": methods.Entropy}
    return {
        "quant_format": quantization.QuantFormat.QDQ,
        "per_channel": True,
        "reduce_range": asked.reduce_range,
        "activation_type": quantization.QuantType.QUInt8,
        "weight_type": quantization.QuantType.QInt8,
        "op_types_to_quantize": None if asked.operators is None else list(asked.operators),
        "nodes_to_exclude": list(asked.excluded),
        "calibrate_method": by_name[asked.calibration],
        "extra_options": {
            "WeightSymmetric": True,
            "ActivationSymmetric": False,
            "CalibPercentile": asked.percentile,
            "CalibStridedMinMax": 1,  # whatever the method: values of one call at a time
        },
    }


class _Inputs:
    """Hands the quantiser one input after the other, as its ``CalibrationDataReader`` does.

    It asks how many there are, names the next range of them, and then takes until None.
    """

    def __init__(self, inputs: Iterable[NDArray[Any]]) -> None:
        self._inputs = inputs if isinstance(inputs, Sequence) else list(inputs)
        self._turn: Iterator[int] = iter(range(len(self._inputs)))

    def __len__(self) -> int:
        return len(self._inputs)

    def set_range(self, start_index: int, end_index: int) -> None:
        self._turn = iter(range(start_index, min(end_index, len(self._inputs))))

    def get_next(self) -> dict[str, NDArray[Any]] | None:
        following = next(self._turn, None)
        return None if following is None else {INPUT_NAME: self._inputs[following]}
