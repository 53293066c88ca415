"""Latencies of exported models, whole, in onnxruntime: in turn, so that what slows the machine slows each alike."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from mnv3search.export.exported import model_input, noise_chunks
from mnv3search.latency.measured.measuring import MeasuringPlan, WatchedTurns, rounds
from mnv3search.latency.measured.whole_networks import Ratio, disturbed_sentence, measured_latencies, paired_ratio
from mnv3search.latency.runtimes.onnx_runtime import OnnxRuntime

if TYPE_CHECKING:
    from mnv3search.export.exported import Description
    from mnv3search.latency.runtimes.base import LoadsGraphs

PLAN = MeasuringPlan(
    rounds=60, min_seconds=3.0, pause_seconds=1.0, tolerance=0.02, max_rounds=300, max_seconds=120.0, lead_calls=1
)


@dataclass(frozen=True, slots=True)
class ModelLatency:
    """What one model takes at batch 1.

    Attributes:
        latency_ms: median.
        error_ms: one standard deviation of that median, and of the machine's speed.
        minimum_ms: the fastest call.
    """

    latency_ms: float
    error_ms: float
    minimum_ms: float


@dataclass(frozen=True, slots=True)
class ModelLatencies:
    """Models timed in turn.

    Attributes:
        runtime: in what, with its version.
        threads: of a call.
        rounds: how many calls of each.
        models: by name, in the order in which they were given.
        ratio: of the last to the first, from calls of the same rounds; None where there is one model.
        disturbed: a sentence on other programs that ran meanwhile; None: none were seen.
    """

    runtime: str
    threads: int
    rounds: int
    models: Mapping[str, ModelLatency]
    ratio: Ratio | None
    disturbed: str | None = None

    def to_mapping(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)


def time_models(
    models: Mapping[str, bytes],
    description: Description,
    *,
    runtime: LoadsGraphs | None = None,
    plan: MeasuringPlan = PLAN,
    progress: Callable[[int], None] | None = None,
) -> ModelLatencies:
    """Time ``models``, all with the input of ``description``, on one image.

    Args:
        models: serialised, by a name for each.
        description: of what enters them.
        runtime: onnxruntime at one thread where None.
        plan: how much is measured; each model runs once before the call that counts.
        progress: called with the rounds done; how many there will be depends on the scatter of the times.

    Raises:
        MissingDependencyError: onnxruntime is not installed.
        MeasurementError: the runtime refuses a model, or time runs out.
    """
    runtime = OnnxRuntime() if runtime is None else runtime
    preprocessing = description.preprocessing
    pixels = next(noise_chunks(1, preprocessing.resolution)).pixels
    image = model_input(pixels, preprocessing, description.input)
    sessions = [runtime.load(content, image, name) for name, content in models.items()]
    reference = runtime.load(next(iter(models.values())), image, "the reference")
    kept, turns = [], WatchedTurns(runtime)
    for one in rounds(sessions, reference, plan, turns=turns):
        kept.append(one)
        if progress is not None:
            progress(len(kept))
    measured = measured_latencies(kept, plan.slot_size, None, turns.waited)
    found = {
        name: ModelLatency(one.latency_ms, one.error_ms, one.minimum_ms)
        for name, one in zip(models, measured, strict=True)
    }
    ratio = paired_ratio(measured[-1].times_ms, measured[0].times_ms) if len(models) > 1 else None
    return ModelLatencies(
        f"{runtime.name} {runtime.version}", runtime.threads, len(kept), found, ratio, disturbed_sentence(measured)
    )
