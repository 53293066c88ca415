"""A trained network in 8 bits: quantised statically on its own training images."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from mnv3search.errors import ExportError, MeasurementError
from mnv3search.export.description import Description
from mnv3search.export.onnx_file import Batch, deployed_graph, finished, with_batch
from mnv3search.export.pixels import Squares, model_input
from mnv3search.latency.runtimes.int8 import Quantisation, quantised

if TYPE_CHECKING:
    from typing import Any

    from numpy.typing import NDArray

    from mnv3search.training.data.preprocessing import Preprocessing
    from mnv3search.training.trained import TrainedNetwork

DEFAULT = Quantisation()
CALL_PIXELS = 32 * 32 * 32  # images of one calibration call hold so many, as all activations of a call stay in memory


def export_int8(
    trained: TrainedNetwork,
    images: Iterable[Squares],
    *,
    quantisation: Quantisation = DEFAULT,
    batch: Batch = "1",
    with_preprocessing: bool = False,
    progress: Callable[[int], None] = lambda _: None,
) -> bytes:
    """The serialised ONNX model of ``trained`` in 8 bits (QDQ), calibrated on ``images``.

    Args:
        trained: the network, its classes and its preprocessing.
        images: squares of training images.
        quantisation: how ranges are found and which operators work in 8 bits.
        batch: ``1``, or ``dynamic`` for any number of images in a call.
        with_preprocessing: take pixels and normalise them, in fp32, in the graph.
        progress: told over how many images ranges were found.

    Raises:
        MissingDependencyError: onnx or onnxruntime is not installed.
        WeightsError: weights that are not finite.
        ExportError: no images, or the quantiser refuses the graph.
    """
    graph = bytes(with_batch(deployed_graph(trained), "dynamic").SerializeToString())
    inputs = _Calls(images, trained.preprocessing, progress)
    try:
        made = quantised(graph, inputs, "the trained network", quantisation)
    except MeasurementError as error:
        raise ExportError(str(error)) from None
    how = {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(quantisation).items()}
    description = replace(Description.of(trained), precision="int8", quantisation={**how, "images": inputs.images})
    return finished(made, description, batch=batch, with_preprocessing=with_preprocessing)


class _Calls(Sequence["NDArray[Any]"]):
    """What the network takes in each calibration call, made when it is asked for: pixels are a quarter as large."""

    def __init__(
        self, images: Iterable[Squares], preprocessing: Preprocessing, progress: Callable[[int], None]
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
