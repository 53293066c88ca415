"""From a trained network to a file that was compared with it: export, quantise, compare, time, and only then write."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mnv3search.errors import ExportError
from mnv3search.export.exported import Batch, Description, ExportedModel, PixelChunk, noise_chunks, pixel_chunks
from mnv3search.export.onnx_file import export_int8, export_onnx
from mnv3search.export.parity import Parity, check_parity, compare
from mnv3search.export.timing import ModelLatencies, time_models
from mnv3search.files import write_bytes, write_text
from mnv3search.latency.runtimes.int8 import Quantisation
from mnv3search.training.data.open_data import with_classes
from mnv3search.training.data.splits import name_hashes, stable_subset
from mnv3search.training.progress import SilentProgress, TrainingProgress

if TYPE_CHECKING:
    from collections.abc import Iterator

    from mnv3search.training.data.images import LabelledImages
    from mnv3search.training.data.splits import DataSplits
    from mnv3search.training.trained import TrainedNetwork

CALIBRATION_IMAGES, CHECK_IMAGES = 128, 500  # a minute together at 224×224 on two cores
NOISE_IMAGES = 64
NOISE = "noise, as no data were given"
SUFFIX = ".onnx"


@dataclass(frozen=True, slots=True)
class ExportSettings:
    """What is exported, and how it is checked.

    Attributes:
        batch: images in a call: ``1`` or ``dynamic``.
        with_preprocessing: whether pixels enter, which the graph normalises.
        int8: how it is quantised; None exports fp32.
        calibration_images: training images over which ranges are found, of as many classes as so many allow.
        check_images: test or validation images on which it is compared with the network, likewise; 0 takes all.
        timed: whether its latency is measured.
    """

    batch: Batch = "1"
    with_preprocessing: bool = False
    int8: Quantisation | None = None
    calibration_images: int = CALIBRATION_IMAGES
    check_images: int = CHECK_IMAGES
    timed: bool = True

    def __post_init__(self) -> None:
        if self.calibration_images < 1 or self.check_images < 0:
            raise ExportError(
                f"{self.calibration_images} calibration images and {self.check_images} images to check on were asked "
                "for; give at least 1 and 0 (all)"
            )


@dataclass(frozen=True, slots=True)
class Export:
    """A file that was written.

    Attributes:
        path, description_path: the model, and its JSON file.
        bytes: of the model.
        batch: images that a call of it takes.
        description: what travels in it.
        parity: how it compares with the network.
        latency: of it and, for int8, of fp32 too; None where it was not timed.
    """

    path: Path
    description_path: Path
    bytes: int
    batch: Batch
    description: Description
    parity: Parity
    latency: ModelLatencies | None

    def to_mapping(self) -> dict[str, object]:
        """Plain values for JSON; the content of the JSON file."""
        return {
            **self.description.to_mapping(),
            "file": self.path.name,
            "bytes": self.bytes,
            "batch": self.batch,
            "parity": self.parity.to_mapping(),
            "latency": None if self.latency is None else self.latency.to_mapping(),
        }


def export_network(
    trained: TrainedNetwork, out: str | Path, settings: ExportSettings | None = None, *, data: DataSplits | None = None,
    progress: TrainingProgress | None = None,
) -> Export:  # fmt: skip
    """Export ``trained`` to ``out`` (and ``out`` + ``.json``), once the model was found to do what the network does.

    Args:
        trained: what to export.
        out: the file, ending in ``.onnx``; written whole or not at all.
        settings: the defaults where None.
        data: calibrates int8 on its training images and compares on its ``test`` or ``val`` ones; its
            labels are brought into the network's order. Without data the comparison is on seeded noise.
        progress: of the stages.

    Raises:
        ExportError: int8 without data, a name that does not end in ``.onnx``, or a model that differs from its network.
        DataError: an image cannot be read, or belongs to a class that the network was not trained on.
        MissingDependencyError: onnx or onnxruntime is not installed.
        RunError: the file cannot be written.
    """
    out = Path(out)
    settings, progress = settings or ExportSettings(), progress or SilentProgress()
    if out.suffix != SUFFIX:
        raise ExportError(f"{out} is no name for an ONNX model; it must end in {SUFFIX}")
    if out.is_dir() or not out.parent.is_dir():
        why = "there is a folder of that name" if out.is_dir() else f"make the folder {out.parent} first"
        raise ExportError(f"{out} cannot be written: {why}")
    if settings.int8 is not None and data is None:
        raise ExportError(
            "int8 needs images to find the ranges of its activations on; add --data with the data that the network was "
            "trained on"
        )
    progress.stage("writing the graph")
    models = {"fp32": export_onnx(trained, batch=settings.batch, with_preprocessing=settings.with_preprocessing)}
    if settings.int8 is not None and data is not None:
        models["int8"] = _quantised(trained, settings, settings.int8, data.train, progress)
    model = list(models.values())[-1]
    loaded = ExportedModel(model, str(out))
    parity = _compared(trained, loaded, settings, data, progress)
    latency = None
    if settings.timed:
        progress.stage("timing it, whole, in onnxruntime, calls")
        latency = time_models(models, loaded.description, progress=progress.advance)
    description_path = out.with_name(out.name + ".json")
    done = Export(out, description_path, len(model), loaded.batch, loaded.description, parity, latency)
    write_bytes(out, model)
    content = {**done.to_mapping(), "sha256": hashlib.sha256(model).hexdigest()}
    write_text(description_path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    return done


def _quantised(
    trained: TrainedNetwork, settings: ExportSettings, quantisation: Quantisation, train: LabelledImages,
    progress: TrainingProgress,
) -> bytes:  # fmt: skip
    chosen = _subset(with_classes(train, trained.classes), settings.calibration_images)
    progress.stage("reading training images to quantise on", len(chosen))
    chunks = list(_counted(pixel_chunks(chosen, trained.preprocessing), progress.advance))
    progress.stage("quantising: ranges found on training images", len(chosen))
    return export_int8(
        trained, chunks, quantisation=quantisation, batch=settings.batch,
        with_preprocessing=settings.with_preprocessing, progress=progress.advance,
    )  # fmt: skip


def _compared(
    trained: TrainedNetwork, model: ExportedModel, settings: ExportSettings, data: DataSplits | None,
    progress: TrainingProgress,
) -> Parity:  # fmt: skip
    preprocessing = trained.preprocessing
    if data is None:
        count, source = NOISE_IMAGES, NOISE
        chunks = noise_chunks(count, preprocessing.resolution)
    else:
        images = with_classes(data.val if data.test is None else data.test, trained.classes)
        chosen = _subset(images, settings.check_images or len(images))
        count, source = len(chosen), f"{images.source.name}, {'val' if data.test is None else 'test'}"
        chunks = pixel_chunks(chosen, preprocessing)
    progress.stage("comparing it with the network", count)
    parity = compare(trained, model, _counted(chunks, progress.advance), source)
    check_parity(parity)
    return parity


def _counted(chunks: Iterator[PixelChunk], advance: Callable[[int], None]) -> Iterator[PixelChunk]:
    done = 0
    for chunk in chunks:
        yield chunk
        done += len(chunk.pixels)
        advance(done)


def _subset(images: LabelledImages, count: int) -> LabelledImages:
    count = min(len(images), count)
    if count >= len(set(images.labels.tolist())):
        return stable_subset(images, count)
    return images.subset(np.sort(np.argsort(name_hashes(images, "subset"), kind="stable")[:count]))
