"""The page of ``benchmarks/int8.py``: its figures in tables, and what follows from them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

Records = Mapping[str, Mapping[str, Any]]

WHY_NOT_FASTER = (
    "Why 8 bits gain nothing here: by onnxruntime's profile (300 calls, on a busy machine, so shares alone) 29 "
    "QuantizeLinear and 29 DequantizeLinear around the h-swishes and gates, which have no 8-bit kernel, take 26 % of "
    "an int8 call, and the h-swishes, which fp32 computes within their convolutions, 12 %; 52 convolutions, on maps "
    "of 32×32 and smaller, take as long as in fp32. Networks that are larger and have ReLU6 gain: `mnv3search export "
    "--int8` prints the ratio for the network at hand, 0.568 (0.547 to 0.589) for MobileNetV2 at 96×96 on this machine."
)


def page(stages: Mapping[str, Records], facts: Mapping[str, object]) -> str:
    """The README of the results, in Markdown; a stage that was not done has no section."""
    parts = ["# int8 against fp32", _about(facts, stages.get("accuracy", {}))]
    if accuracy := stages.get("accuracy"):
        parts += ["## Accuracy on CIFAR-10's 10,000 test images", _accuracy(accuracy)]
    if latency := stages.get("latency"):
        parts += ["## Latency, whole networks, batch 1, one thread", _latency(latency), WHY_NOT_FASTER]
    if imagenet := stages.get("imagenet"):
        parts += ["## MobileNetV2 with ImageNet weights", _imagenet(imagenet)]
    return "\n\n".join(parts)


def _about(facts: Mapping[str, object], accuracy: Records) -> str:
    network = accuracy.get("network")
    known = ", ".join(f"{key} {_plain(value)}" for key, value in facts.items())
    top1 = f" It scores {network['top1']:.2f} % in torch on {network['images']:,} test images." if network else ""
    return (
        "The reference network of `mnv3_small_32` (MobileNetV3-Small for 32×32), trained on CIFAR-10, exported by "
        "`export_onnx` and quantised by `export_int8`: weights int8, one scale an output channel; activations uint8, "
        f"one scale a tensor; ranges over 256 training images unless a row says otherwise.{top1} Known of it: {known}."
    )


def _accuracy(records: Records) -> str:
    rows = [
        (
            name, f"{one['top1']:.2f}", f"{one['change']:+.2f} ± {one['change_error']:.2f}", f"{one['agreement']:.2f}",
            f"{one['rms_difference']:.2e}", f"{one['seconds']:.1f}" if "seconds" in one else "",
        )
        for name, one in records.items()
        if name != "network"
    ]  # fmt: skip
    head = ("", "top-1, %", "against the network, points ± 1 σ", "same class, %", "rms of logits", "quantised in, s")
    worst = min((one for name, one in records.items() if "change" in one), key=lambda one: one["change"])
    words = (
        "σ is of the paired difference: images on which both are right or both wrong leave it out. The largest loss of "
        f"any row is {-worst['change']:.2f} points."
    )
    return f"{_table(head, rows)}\n\n{words}"


def _latency(records: Records) -> str:
    rows = []
    for name, one in records.items():
        models, ratio = one["models"], one["ratio"]
        rows.append(
            (
                name, f"{models['fp32']['latency_ms']:.3f} ± {models['fp32']['error_ms']:.3f}",
                f"{models['int8']['latency_ms']:.3f} ± {models['int8']['error_ms']:.3f}",
                f"{ratio['value']:.3f} ({ratio['low']:.3f} to {ratio['high']:.3f})", f"{one['rounds']}",
            )
        )  # fmt: skip
    head = ("runtime and what works in 8 bits", "fp32, ms", "int8, ms", "int8 / fp32 (95 %)", "calls of each")
    versions = ", ".join(dict.fromkeys(one["runtime"] for one in records.values()))
    return f"{_table(head, rows)}\n\nfp32 and int8 take turns in every row; {versions}. Below 1, int8 is faster."


def _imagenet(records: Records) -> str:
    rows = [(name, f"{one['agreement']:.1f}", f"{one['rms_difference']:.2e}") for name, one in records.items()]
    table = _table(("", "same class of 1,000, %", "rms of logits"), rows)
    return (
        "500 of CIFAR-10's test images, enlarged to 224×224, ranges over 64 training images. There are no labels for "
        "them among ImageNet's classes and the images are blurred, so many logits are close to each other: a weak "
        f"check, which says whether 8 bits break the network, not what they cost on ImageNet.\n\n{table}"
    )


def _table(head: Iterable[str], rows: Iterable[Iterable[str]]) -> str:
    names = list(head)
    lines = [names, ["---", *["---:"] * (len(names) - 1)], *map(list, rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def _plain(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
