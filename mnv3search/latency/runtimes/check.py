"""Whether a runtime computes what it should: its outputs against torch's, on networks of every operator.

A runtime that drops a layer, pads otherwise or works in less precision than it says is fast, and its times are worth
nothing. So each is compared with torch, in double precision, with the same weights and on the same input.

In ``fp32`` the figure is the largest difference of an output, ``max |a - b| / rms(b)``, ``b`` being torch's. It may be
1e-3: rounding comes to 3e-6, half precision (fp16, bf16, TF32) to more than 1e-3. In ``int8`` it is the relative error
``rms(a - b) / rms(b)`` and may be 0.2: a network of random weights, calibrated on the image that is timed too, keeps
within 0.04 on these probes and 0.13 on published networks, and kernels that saturate in 16 bits (x86 without VNNI) add
to that; an unrelated output is off by about 1.4.
"""

from __future__ import annotations

import numpy as np

from mnv3search.architecture import Architecture, HeadSpec, StemSpec
from mnv3search.blocks import BlockSpec, SqueezeExciteSpec
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


def check_outputs(runtime: Runtime) -> float:
    """Compare a runtime's outputs with torch's; returns the worst figure found.

    Prepares :data:`PROBES` and some of their units (none where it takes whole networks alone): well under a second for
    a runtime that prepares quickly. torch keeps its number of threads.

    Raises:
        MeasurementError: an output is not what torch gives, not finite, all zero, or holds subnormal numbers.
        MissingDependencyError: torch, or a package of the runtime, is not installed.
    """
    subjects: list[Subject] = [*PROBES]
    if not is_whole_only(runtime):
        parts = units(SAME_PADDED)
        subjects += [parts[0], parts[2], parts[3], parts[-1]]
    with threads_kept():
        return max(_check_subject(runtime, subject) for subject in subjects)


def _check_subject(runtime: Runtime, subject: Subject) -> float:
    session = runtime.prepare(subject)
    for _ in range(CALLS):
        session.time_once()
    found = np.asarray(session.output(), dtype=np.float64)
    truth = exact_output(subject)

    def refusal(fault: str, rule: str) -> MeasurementError:
        what = "a network" if isinstance(subject, Architecture) else "a layer"
        return MeasurementError(
            f"{runtime.name} {runtime.version} computes wrongly: its output of {what} is {fault}; {rule}, "
            "so its times say nothing: use another version or another runtime"
        )

    if found.shape != truth.shape:
        raise refusal(f"of shape {found.shape}", f"it must be {truth.shape}")
    if not np.isfinite(found).all():
        raise refusal("not finite", "every number must be")
    if not found.any():
        raise refusal("0 throughout", "activations must stay near 1")
    if ((found != 0) & (np.abs(found) < np.finfo(np.float32).tiny)).any():
        raise refusal("partly subnormal", "such numbers take another time than trained networks' do")
    difference, size = found - truth, np.sqrt(np.mean(truth**2))
    if runtime.precision == "int8":
        figure, allowed = float(np.sqrt(np.mean(difference**2)) / size), MAX_INT8_ERROR
    else:
        figure, allowed = float(np.abs(difference).max() / size), MAX_FP32_DIFFERENCE
    if figure > allowed:
        fault = f"{figure:.2g} of its root mean square away from torch's"
        raise refusal(fault, f"{allowed:g} is allowed in {runtime.precision}")
    return figure
