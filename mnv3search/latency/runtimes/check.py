"""Whether a runtime computes what it is asked to: its outputs beside torch's, on networks of every operator.

A runtime that drops a layer, pads otherwise or works in less precision than it says is fast, and its times are worth
nothing. So each is held to torch, in double precision, with the same weights and on the same input.

In ``fp32`` the figure is the largest difference of an output, ``max |a - b| / rms(b)``, ``b`` being torch's. It may be
1e-3: rounding comes to 3e-6, half precision (fp16, bf16, TF32) to more than 1e-3. In ``int8`` it is the relative error
``rms(a - b) / rms(b)`` and may be 0.2: a network of random weights, calibrated on the image that is timed too, keeps
within 0.04 on these probes and 0.13 on published networks, and kernels that saturate in 16 bits (x86 without VNNI) add
to that; an unrelated output is off by about 1.4.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mnv3search.architecture import Architecture, BlockSpec, HeadSpec, SqueezeExciteSpec, StemSpec
from mnv3search.errors import MeasurementError
from mnv3search.latency.runtimes.base import Runtime, Subject, is_whole_only
from mnv3search.latency.runtimes.torch_eager import exact_output, threads_kept
from mnv3search.layers import units

MAX_FP32_DIFFERENCE = 1e-3
MAX_INT8_ERROR = 0.2
CALLS = 3  # before the output is read: what is timed are later calls, whose input the first may have written over

SAME_PADDED = Architecture(
    StemSpec(8, activation="relu6"),
    (
        BlockSpec(3, 8, 8, 1, "relu", expansion="depthwise", linear_bottleneck=False),
        BlockSpec(3, 24, 8, 1, "relu6", SqueezeExciteSpec(8, use_norm=True, position="projection")),
        BlockSpec(5, 24, 16, 2, "swish", SqueezeExciteSpec(8, "swish", "sigmoid"), shortcut="projected"),
        BlockSpec(7, 32, 24, 1, "hard_swish", SqueezeExciteSpec(8), shortcut="projected"),
    ),
    HeadSpec(32, 16, squeeze_excite=SqueezeExciteSpec(8), hidden_norm=True),
    resolution=32,
    classes=10,
    padding="same",
    conv_bias=True,
)
SYMMETRIC = Architecture(
    StemSpec(16),
    (
        BlockSpec(3, 16, 16, 2, "relu", SqueezeExciteSpec(8)),
        BlockSpec(5, 64, 24, 2, "hard_swish", SqueezeExciteSpec(16, gate="hard_swish")),
        BlockSpec(3, 72, 24, 1, "relu6"),
        BlockSpec(7, 72, 32, 2, "swish", SqueezeExciteSpec(24, gate="sigmoid")),
    ),
    HeadSpec(96),
    resolution=64,
    classes=10,
)
PROBES = (SAME_PADDED, SYMMETRIC)
"""Together they have every kind of layer, padding, activation, gate and shortcut; kernels 3, 5, 7; strides 1, 2."""

Output = NDArray[np.float64]


def check_outputs(runtime: Runtime) -> float:
    """Hold a runtime to torch; returns the worst figure found.

    Prepares :data:`PROBES` and some of their units (none where it takes whole networks alone): well under a second for
    a runtime that prepares quickly. torch keeps its number of threads.

    Raises:
        MeasurementError: an output is not what torch gives, not finite, all zero, or holds subnormal numbers.
        MissingDependencyError: torch, or a package of the runtime, is not installed.
    """
    with threads_kept():
        return max(_check_subject(runtime, subject) for subject in probes(runtime))


def probes(runtime: Runtime) -> list[Subject]:
    """What ``runtime`` is checked on."""
    if is_whole_only(runtime):
        return [*PROBES]
    parts = units(SAME_PADDED)
    return [*PROBES, parts[0], parts[2], parts[3], parts[-1]]


def _check_subject(runtime: Runtime, subject: Subject) -> float:
    session = runtime.prepare(subject)
    for _ in range(CALLS):
        session.time_once()
    found = np.asarray(session.output(), dtype=np.float64)
    truth = exact_output(subject)
    what = "a network" if isinstance(subject, Architecture) else "a layer"
    if found.shape != truth.shape:
        raise _refusal(runtime, what, f"of shape {found.shape}", f"it must be {truth.shape}")
    if not np.isfinite(found).all():
        raise _refusal(runtime, what, "not finite", "every number must be")
    if not found.any():
        raise _refusal(runtime, what, "0 throughout", "activations must stay near 1")
    if ((found != 0) & (np.abs(found) < np.finfo(np.float32).tiny)).any():
        raise _refusal(runtime, what, "partly subnormal", "such numbers take another time than trained networks' do")
    int8 = runtime.precision == "int8"
    figure = relative_error(found, truth) if int8 else largest_difference(found, truth)
    allowed = MAX_INT8_ERROR if int8 else MAX_FP32_DIFFERENCE
    if figure > allowed:
        fault = f"{figure:.2g} of its root mean square away from torch's"
        raise _refusal(runtime, what, fault, f"{allowed:g} is allowed in {runtime.precision}")
    return figure


def largest_difference(found: Output, truth: Output) -> float:
    """``max |found - truth| / rms(truth)``, the rule of ``fp32``."""
    return float(np.abs(found - truth).max() / np.sqrt(np.mean(truth**2)))


def relative_error(found: Output, truth: Output) -> float:
    """``rms(found - truth) / rms(truth)``, the rule of ``int8``."""
    return float(np.sqrt(np.mean((found - truth) ** 2) / np.mean(truth**2)))


def _refusal(runtime: Runtime, what: str, fault: str, rule: str) -> MeasurementError:
    return MeasurementError(
        f"{runtime.name} {runtime.version} computes wrongly: its output of {what} is {fault}; {rule}, "
        "so its times say nothing: use another version or another runtime"
    )
