"""Latencies of networks by name: a model's sums, or whole networks timed in turn."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mnv3search.architecture import Architecture
from mnv3search.errors import DeviceError
from mnv3search.graph.model_file import is_model_file, read_model
from mnv3search.latency.devices import load_device
from mnv3search.latency.measured.whole_networks import Ratio, busy_sentence, disturbed_sentence, paired_ratio
from mnv3search.latency.model import LatencyKind, Preparable, Progress, checked_latencies
from mnv3search.layers import units
from mnv3search.naming import parse_network


@dataclass(frozen=True, slots=True)
class NetworkLatency:
    """One network's milliseconds: the median and the fastest call where it was timed whole, and one deviation.

    ``ratio`` is to the network that the others are compared with, from calls of the same rounds.
    """

    name: str
    latency_ms: float
    error_ms: float | None
    minimum_ms: float | None = None
    ratio: Ratio | None = None


@dataclass(frozen=True, slots=True)
class Latencies:
    """Networks by one model; ratios are to ``against``, and each was called ``rounds`` times where timed whole."""

    device: str
    kind: LatencyKind
    rows: Sequence[NetworkLatency]
    against: str | None = None
    rounds: int | None = None
    notes: Sequence[str] = ()


def latencies(
    names: Sequence[str],
    device: str,
    *,
    whole: bool = False,
    against: str | None = None,
    progress: Progress | None = None,
) -> Latencies:
    """Latencies of networks as :func:`~mnv3search.naming.parse_network` takes them, by one device.

    Args:
        names: of networks; with ``whole`` also ONNX files.
        device: as :func:`~mnv3search.latency.devices.load_device` takes it.
        whole: time whole networks, interleaved, instead of the model's sums.
        against: the network to which ratios are, the first of ``names`` where not given; another one is timed as well.
        progress: called while something is measured.
    """
    if against is not None and not whole:
        raise DeviceError(f"--against {against} compares networks that are timed whole, in turn; add --whole")
    shown = [*([against] if against is not None and against not in names else []), *names]
    if not whole and (file := next(filter(is_model_file, shown), None)) is not None:
        raise DeviceError(
            f"{file} is a model file, which is timed as it stands; add --whole, on --device host or ssh://USER@BOARD"
        )
    subjects = [read_model(name) if is_model_file(name) else parse_network(name) for name in shown]
    model = load_device(device)
    busy = busy_sentence(model)  # before it is made busy
    if whole:
        from mnv3search.latency.measured.table_device import TableDevice  # measuring is loaded only where it is used

        if not isinstance(model, TableDevice):
            raise DeviceError(
                f"--whole times networks on a machine; {device} cannot be timed here, use --device host or ssh://…"
            )
        timed = model.measure(subjects, progress)
        notes = [note for note in (busy, disturbed_sentence(timed)) if note is not None]
        base = 0 if against is None else shown.index(against)
        ratios = [paired_ratio(one.times_ms, timed[base].times_ms) if len(timed) > 1 else None for one in timed]
        measured = [
            NetworkLatency(name, one.latency_ms, one.error_ms, one.minimum_ms, ratio)
            for name, one, ratio in zip(shown, timed, ratios, strict=True)
        ]
        compared = shown[base] if len(timed) > 1 else None
        return Latencies(model.name, "measured", measured, compared, timed[0].rounds, notes)
    networks = [subject for subject in subjects if isinstance(subject, Architecture)]
    if isinstance(model, Preparable):
        model.prepare(list(dict.fromkeys(part for a in networks for part in units(a))), progress)
    values = checked_latencies(model, networks)
    errors = model.latency_error_ms(networks)
    rows = [NetworkLatency(n, float(v), float(e)) for n, v, e in zip(shown, values, errors, strict=True)]
    return Latencies(model.name, model.kind, rows, notes=[busy] if busy else [])
