"""What a latency table should hold: whole blocks, single operators, or the operators that the runtime fused.

Random networks of a space are timed whole, in turn, and so are their distinct blocks and their distinct operators (each
a graph of its own); the fused operators' times come from onnxruntime's own profiler inside the whole networks. Each sum
predicts the whole networks raw, and after a scale and a boundary term fitted on the other networks (leave one out).
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._latency_errors import HEADER, Numbers, compared, line
from benchmarks._results import write_results
from mnv3search.architecture import Architecture
from mnv3search.families import published
from mnv3search.latency.measured.calibration import entering_elements
from mnv3search.latency.measured.measuring import MeasuringPlan, drift_corrected, rounds
from mnv3search.latency.remote.agent import clock_of
from mnv3search.latency.runtimes.base import CallSession, Session, graph_of
from mnv3search.latency.runtimes.registry import load_runtime
from mnv3search.layers import units
from mnv3search.space import load_space

ACTIVATIONS = {"Relu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid"}
PROFILED_CALLS = 60


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--space", default="mnv3_large")
    parser.add_argument("--networks", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--seed", type=int, default=23)
    return parser.parse_args()


def operator_graphs(architecture: Architecture) -> list[bytes]:
    """Every operator of a network as a model of its own, an activation together with what it follows."""
    import onnx

    model = onnx.shape_inference.infer_shapes(onnx.load_from_string(graph_of(architecture)))
    graph = model.graph
    shapes = {v.name: v for v in (*graph.input, *graph.value_info, *graph.output)}
    weights = {w.name: w for w in graph.initializer}
    groups: list[list[Any]] = []
    for node in graph.node:
        follows = groups and node.op_type in ACTIVATIONS and node.input[0] == groups[-1][-1].output[0]
        groups[-1].append(node) if follows else groups.append([node])
    found = []
    for group in groups:
        made = {output for node in group for output in node.output}
        entering = dict.fromkeys(n for node in group for n in node.input if n not in made)
        alone = onnx.helper.make_graph(
            group, "operator", [shapes[n] for n in entering if n not in weights], [shapes[group[-1].output[0]]],
            [weights[n] for n in entering if n in weights],
        )  # fmt: skip
        found.append(onnx.helper.make_model(alone, opset_imports=model.opset_import, ir_version=model.ir_version))
    return [_anonymous(operator) for operator in found]


def _anonymous(model: Any) -> bytes:
    """The model with its tensors renamed in order and its weights fixed, so that equal operators are equal bytes."""
    import onnx

    names: dict[str, str] = {}
    graph = model.graph
    for weight in graph.initializer:
        shape = tuple(weight.dims)
        if len(shape) > 0:
            scale = np.float32(1 / np.sqrt(np.prod(shape[1:], dtype=np.int64)))
            values = scale * np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
            weight.CopyFrom(onnx.numpy_helper.from_array(values, weight.name))
    for holder in (*graph.input, *graph.output, *graph.initializer):
        holder.name = names.setdefault(holder.name, f"t{len(names)}")
    for node in graph.node:
        node.name = ""
        for tensors in (node.input, node.output):
            tensors[:] = [names.setdefault(name, f"t{len(names)}") for name in tensors]
    return bytes(model.SerializeToString(deterministic=True))


def operator_session(graph: bytes) -> Session:
    """An operator's graph, ready to be timed as the runtime times units."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(1)
    binding = session.io_binding()
    kept = []
    for entering in session.get_inputs():
        value = onnxruntime.OrtValue.ortvalue_from_numpy(rng.standard_normal(entering.shape, dtype=np.float32))
        binding.bind_ortvalue_input(entering.name, value)
        kept.append(value)
    output = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(session.get_outputs()[0].shape, np.float32))
    binding.bind_ortvalue_output(session.get_outputs()[0].name, output)
    return CallSession(lambda: (session.run_with_iobinding(binding), kept), output.numpy, clock_of(1))


def timed(sessions: Sequence[Session], reference: Session, plan: MeasuringPlan) -> tuple[Numbers, Numbers]:
    """Medians and lower quartiles at the machine's median drift; milliseconds."""
    kept = list(rounds(sessions, reference, plan))
    times = drift_corrected(kept, plan.slot_size).ms
    return np.median(times, axis=0), np.quantile(times, 0.25, axis=0)


def fused_times(architecture: Architecture, folder: Path) -> dict[tuple[str, ...], list[float]]:
    """Milliseconds of each operator that onnxruntime runs in a network, by what it is; one entry an occurrence."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
    session = onnxruntime.InferenceSession(graph_of(architecture), options, providers=["CPUExecutionProvider"])
    image = np.random.default_rng(1).standard_normal(session.get_inputs()[0].shape, dtype=np.float32)
    for _ in range(PROFILED_CALLS):
        session.run(None, {session.get_inputs()[0].name: image})
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    by_node: dict[str, list[float]] = defaultdict(list)
    keys = {}
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            args = event["args"]
            by_node[event["name"]].append(event["dur"] / 1e3)
            fields = ("op_name", "input_type_shape", "output_type_shape", "parameter_size")
            keys[event["name"]] = tuple(str(args[f]) for f in fields)
    found: dict[tuple[str, ...], list[float]] = defaultdict(list)
    for name, times in by_node.items():
        found[keys[name]].append(float(np.median(times)))
    return found


def fused_sums(profiles: Sequence[dict[tuple[str, ...], list[float]]]) -> tuple[Numbers, float]:
    """Each network's sum by the times that the other networks' operators took, and the share that others had."""
    sums, seen, total = [], 0, 0
    for own in profiles:
        others: dict[tuple[str, ...], list[float]] = defaultdict(list)
        for profile in profiles:
            if profile is not own:
                for key, times in profile.items():
                    others[key] += times
        sums.append(sum(len(times) * float(np.mean(others.get(key, times))) for key, times in own.items()))
        seen += sum(len(times) for key, times in own.items() if key in others)
        total += sum(len(times) for times in own.values())
    return np.array(sums), seen / total


def held_out(sums: Numbers, elements: Numbers, whole: Numbers) -> Numbers:
    """Each network by the scale and boundary fitted on the others."""
    predicted = np.zeros(len(whole))
    rows = np.stack([sums, -elements], axis=1)
    for index in range(len(whole)):
        others = np.arange(len(whole)) != index
        weighted = rows[others] / whole[others, None]
        predicted[index] = rows[index] @ np.linalg.lstsq(weighted, np.ones(others.sum()), rcond=None)[0]
    return predicted


def sums_of(networks: Sequence[Architecture], plan: MeasuringPlan) -> tuple[dict[str, Numbers], Numbers, float]:
    """Each network's sum by every kind of part, its time whole, and the share of fused operators that others have."""
    runtime = load_runtime("onnxruntime")
    reference = runtime.prepare(published("mobilenet_v3_large"))
    with tempfile.TemporaryDirectory() as folder:
        profiles = [fused_times(a, Path(folder)) for a in networks]
    blocks = list(dict.fromkeys(unit for a in networks for unit in units(a)))
    operators = [operator_graphs(a) for a in networks]
    distinct = list(dict.fromkeys(graph for graphs in operators for graph in graphs))
    whole, _ = timed([runtime.prepare(a) for a in networks], reference, replace(plan, slot_size=12))
    block_ms = dict(zip(blocks, timed([runtime.prepare(u) for u in blocks], reference, plan)[1], strict=True))
    operator_ms = dict(zip(distinct, timed([operator_session(g) for g in distinct], reference, plan)[1], strict=True))
    fused, share = fused_sums(profiles)
    sums = {
        f"{len(blocks)} blocks": np.array([sum(block_ms[u] for u in units(a)) for a in networks]),
        f"{len(distinct)} operators": np.array([sum(operator_ms[g] for g in graphs) for graphs in operators]),
        "fused operators, by the profiler": fused,
    }
    return sums, whole, share


def main() -> None:
    """Measure, compare, keep."""
    args = arguments()
    networks = load_space(args.space).sample(args.networks, args.seed)
    sums, whole, share = sums_of(networks, MeasuringPlan(rounds=args.rounds))
    elements = np.array([entering_elements(units(a)).sum() for a in networks]) * 1e-6
    found = {
        name: {"raw": compared(s, whole), "calibrated": compared(held_out(s, elements, whole), whole)}
        for name, s in sums.items()
    }
    text = [
        "# What a table should hold",
        "",
        f"{len(networks)} random networks of {args.space}, onnxruntime, one thread.",
    ]
    text += [f"{share:.0%} of a network's fused operators also run in another of them.", "", HEADER]
    for name, errors in found.items():
        text += [
            line(f"{name}, raw sum", errors["raw"]),
            line(f"{name}, calibrated on the others", errors["calibrated"]),
        ]
    write_results("granularity", {"errors": found, "covered": share}, "\n".join(text), [args.seed])
    print("\n".join(text))


if __name__ == "__main__":
    main()
