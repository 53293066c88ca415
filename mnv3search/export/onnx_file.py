"""Trained networks to ONNX models, in fp32 or in 8 bits: the project's own graph with its weights and metadata.

The model's input is called ``input`` and is either ``(N, 3, R, R)`` float32, normalised, or with the preprocessing
inside ``(N, R, R, 3)`` uint8, RGB; its output ``output`` is the logits, ``(N, classes)`` float32. N is 1, or any where
the batch is dynamic.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from mnv3search.errors import ExportError, MeasurementError
from mnv3search.export.exported import Batch, Description, PixelChunk, model_input, write_description
from mnv3search.graph import INPUT_NAME, network_graph
from mnv3search.latency.runtimes.int8 import Quantisation, quantised

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

    from mnv3search.training.data.preprocessing import Preprocessing
    from mnv3search.training.trained import TrainedNetwork

NORMALISED = "normalised"  # the first convolution's input where preprocessing is inside
DEFAULT = Quantisation()
CALL_PIXELS = 32 * 32 * 32  # images of one calibration call hold so many, as all activations of a call stay in memory
_DYNAMIC = "batch"


def export_onnx(trained: TrainedNetwork, *, batch: Batch = "1", with_preprocessing: bool = False) -> bytes:
    """The serialised ONNX model of ``trained``, with norms folded into convolutions, and its description.

    Args:
        trained: the network, its classes and its preprocessing, at whose resolution the model works.
        batch: ``1``, or ``dynamic`` for any number of images in a call.
        with_preprocessing: take pixels, (N, R, R, 3) uint8 RGB, and normalise them in the graph; resizing and cropping
            to R stay with the caller.

    Raises:
        MissingDependencyError: onnx is not installed.
        WeightsError: weights that are not finite.
        ExportError: the graph is not valid ONNX.
    """
    return _finished(_deployed_graph(trained), Description.of(trained), batch, with_preprocessing)


def _deployed_graph(trained: TrainedNetwork) -> bytes:
    """The serialised graph of ``trained`` alone: (1, 3, R, R) float32 to (1, classes)."""
    from mnv3search.network.folded import folded_weights

    # a network may be trained on images of another side than it is described for; its weights fit both
    architecture = replace(trained.architecture, resolution=trained.preprocessing.resolution)
    return network_graph(architecture, weights=folded_weights(trained.network))


def _finished(graph: bytes, description: Description, batch: Batch, with_preprocessing: bool) -> bytes:
    """``graph`` for this batch, with preprocessing where it is asked for, and its description; checked by onnx."""
    import onnx

    model = _with_batch(graph, batch)
    if with_preprocessing:
        _put_preprocessing(model, description.preprocessing, batch)
    write_description(model, replace(description, input="uint8" if with_preprocessing else "float32"))
    try:
        onnx.checker.check_model(model, full_check=True)
    except Exception as error:  # the checker, shape inference and protobuf each have classes of their own
        raise ExportError(f"the exported graph is not valid ONNX: {' '.join(str(error).split())[:300]}") from None
    return bytes(model.SerializeToString())


def _with_batch(model: bytes, batch: Batch) -> onnx.ModelProto:
    """``model`` for this batch, without the shapes inferred for another one."""
    import onnx

    loaded = onnx.load_from_string(model)
    del loaded.graph.value_info[:]
    for value in (*loaded.graph.input, *loaded.graph.output):
        first = value.type.tensor_type.shape.dim[0]
        if batch == "dynamic":
            first.dim_param = _DYNAMIC
        else:
            first.dim_value = 1
    return loaded


def _put_preprocessing(model: onnx.ModelProto, preprocessing: Preprocessing, batch: Batch) -> None:
    """Take pixels in place of the normalised input: channels first, cast, and a scale and a shift of each channel."""
    import onnx

    side, graph = preprocessing.resolution, model.graph
    std = np.array(preprocessing.std, dtype=np.float64)
    factors = {
        "preprocessing.scale": 1 / (255 * std),
        "preprocessing.shift": -np.array(preprocessing.mean, dtype=np.float64) / std,
    }
    for node in graph.node:
        for index, name in enumerate(node.input):
            if name == INPUT_NAME:
                node.input[index] = NORMALISED
    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Transpose", [INPUT_NAME], "preprocessing.transpose", {"perm": [0, 3, 1, 2]}),
        ("Cast", ["preprocessing.transpose"], "preprocessing.cast", {"to": onnx.TensorProto.FLOAT}),
        ("Mul", ["preprocessing.cast", "preprocessing.scale"], "preprocessing.scaled", {}),
        ("Add", ["preprocessing.scaled", "preprocessing.shift"], NORMALISED, {}),
    ]
    made = [onnx.helper.make_node(kind, given, [out], name=out, **more) for kind, given, out, more in steps]
    rest = list(graph.node)
    del graph.node[:]
    graph.node.extend([*made, *rest])
    for name, values in factors.items():
        graph.initializer.append(onnx.numpy_helper.from_array(values.astype(np.float32).reshape(1, 3, 1, 1), name))
    images: int | str = _DYNAMIC if batch == "dynamic" else 1
    pixels = onnx.helper.make_tensor_value_info(INPUT_NAME, onnx.TensorProto.UINT8, [images, side, side, 3])
    graph.input[0].CopyFrom(pixels)


def export_int8(
    trained: TrainedNetwork,
    images: Iterable[PixelChunk],
    *,
    quantisation: Quantisation = DEFAULT,
    batch: Batch = "1",
    with_preprocessing: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> bytes:
    """The serialised ONNX model of ``trained`` in 8 bits (QDQ), calibrated on ``images``.

    Args:
        trained: the network, its classes and its preprocessing.
        images: of the training, resized and cropped.
        quantisation: how ranges are found and which operators work in 8 bits.
        batch: ``1``, or ``dynamic`` for any number of images in a call.
        with_preprocessing: take pixels and normalise them, in fp32, in the graph.
        progress: called with the number of images over which ranges were found.

    Raises:
        MissingDependencyError: onnx or onnxruntime is not installed.
        WeightsError: weights that are not finite.
        ExportError: no images, or the quantiser refuses the graph.
    """
    graph = bytes(_with_batch(_deployed_graph(trained), "dynamic").SerializeToString())
    inputs = _Calls(images, trained.preprocessing, progress)
    try:
        made = quantised(graph, inputs, "the trained network", quantisation)
    except MeasurementError as error:
        raise ExportError(str(error)) from None
    how = {**asdict(quantisation), "images": inputs.images}
    description = replace(Description.of(trained), precision="int8", quantisation=how)
    return _finished(made, description, batch, with_preprocessing)


class _Calls(Sequence["NDArray[Any]"]):
    """The input of each calibration call, made from pixels when it is read: these are a quarter as large."""

    def __init__(
        self, images: Iterable[PixelChunk], preprocessing: Preprocessing, progress: Callable[[int], None]
    ) -> None:
        size = max(1, CALL_PIXELS // preprocessing.resolution**2)
        self._preprocessing, self._progress = preprocessing, progress
        self._pixels = [
            chunk.pixels[first : first + size] for chunk in images for first in range(0, len(chunk.pixels), size)
        ]
        self.images = sum(map(len, self._pixels))

    def __len__(self) -> int:
        return len(self._pixels)

    def __getitem__(self, index: Any) -> Any:
        self._progress(sum(map(len, self._pixels[: index + 1])))
        return model_input(self._pixels[index], self._preprocessing, "float32")
