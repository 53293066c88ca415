"""Times of whole networks that a user brings: which network each row is, in milliseconds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mnv3search.architecture import Architecture
from mnv3search.errors import MeasurementError, Mnv3SearchError
from mnv3search.latency.fitted.fitted import MIN_NETWORKS
from mnv3search.latency.fitted.time_rows import MAX_MS, TimeRow, averaged, check_magnitudes, read_times, time_columns
from mnv3search.latency.fitted.unit_prices import MAX_SUMS
from mnv3search.layers import units
from mnv3search.naming import parse_network

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, slots=True)
class NetworkTimes:
    """Distinct networks and their rows, in order; and what is to be told about the file."""

    networks: tuple[Architecture, ...]
    rows: tuple[TimeRow, ...]
    notices: tuple[str, ...]

    @property
    def times_ms(self) -> tuple[float, ...]:
        """Of each network, in milliseconds."""
        return tuple(row.ms for row in self.rows)


def read_network_times(path: Path) -> NetworkTimes:
    """The networks of a CSV file with the columns ``architecture`` and ``ms`` (or ``us``, or ``s``).

    A network is written as everywhere: a published name such as ``mobilenet_v3_large@0.75``, or the path of a JSON
    file, relative to the CSV's folder. Two names of one network are one network.

    Raises:
        MeasurementError: as :func:`~mnv3search.latency.fitted.time_rows.read_times`; or an unknown network, fewer than
            5 or more than 1000 of them, or times that are of different units.
    """
    file = read_times(path, ("architecture",))
    return _gathered(str(path), ((_of_file(path, row), row) for row in file.rows), file.notices)


def network_times(timings: Iterable[object] | DataFrame) -> NetworkTimes:
    """The networks of timings in memory: see :func:`~mnv3search.latency.fitted.whole_fit.fit_device`.

    Raises:
        MeasurementError: an item that is no such pair or row; else as :func:`read_network_times`.
    """
    source, word, pairs = "timings", "item", timings
    if hasattr(timings, "columns"):
        source, word, pairs = "the table of timings", "row", _rows_of_table(timings)
    if isinstance(pairs, (str, Mapping)) or not isinstance(pairs, Iterable):
        raise MeasurementError("timings must be pairs of a network and its milliseconds, or a DataFrame")
    return _gathered(source, (_pair(source, word, n, pair) for n, pair in enumerate(pairs)), ())


def _gathered(source: str, entries: Iterable[tuple[Architecture, TimeRow]], notices: Sequence[str]) -> NetworkTimes:
    by_network: dict[Architecture, list[TimeRow]] = {}
    for network, row in entries:
        by_network.setdefault(network, []).append(row)
        if len(by_network) > MAX_SUMS:
            break
    if not MIN_NETWORKS <= len(by_network) <= MAX_SUMS:
        has = f"more than {MAX_SUMS}" if len(by_network) > MAX_SUMS else len(by_network)
        raise MeasurementError(
            f"{source} has {has} networks; a device is fitted to {MIN_NETWORKS} to {MAX_SUMS}, "
            "the more and the more different, the better"
        )
    told = list(notices)
    rows = tuple(averaged(source, same, told) for same in by_network.values())
    told += check_magnitudes(source, rows, [units(a) for a in by_network])
    return NetworkTimes(tuple(by_network), rows, tuple(told))


def _of_file(path: Path, row: TimeRow) -> Architecture:
    name = str(path.parent / row.name) if row.name.endswith(".json") else row.name
    return _network(f"{path}, {row.where}", name)


def _network(where: str, name: str) -> Architecture:
    try:
        return parse_network(name)
    except Mnv3SearchError as error:
        raise MeasurementError(f"{where}: {error}") from None


def _rows_of_table(table: Any) -> Iterable[tuple[object, object]]:
    columns = [str(name) for name in table.columns]
    name, (time, factor), _ = time_columns("the table of timings", columns, ("architecture",))
    for network, value in zip(table.iloc[:, name], table.iloc[:, time], strict=True):
        yield network, value * factor if isinstance(value, Real) else value


def _pair(source: str, word: str, at: int, pair: object) -> tuple[Architecture, TimeRow]:
    where = f"{source}, {word} {at}"
    if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
        raise MeasurementError(f"{where} is {pair!r:.80}; it must be a pair of a network and its milliseconds")
    network, ms = pair
    if not isinstance(network, (Architecture, str, Path)):
        raise MeasurementError(f"{where} names {network!r:.80}; give an Architecture, a network's name or a path")
    if isinstance(ms, bool) or not isinstance(ms, Real) or not 0 < float(ms) <= MAX_MS:
        raise MeasurementError(f"{where}: a time of {ms!r:.80}; it must be milliseconds, above 0, at most {MAX_MS:g}")
    found = network if isinstance(network, Architecture) else _network(where, str(network))
    return found, TimeRow(str(network), float(ms), None, (at,), word)


def suspect_notices(rows: Sequence[TimeRow], suspects: Sequence[int], relative: Sequence[float]) -> list[str]:
    """A sentence for each row that lies far from what the other rows say; ``relative`` is predicted over timed, - 1."""
    return [
        f"{rows[i].where}: the other rows say {rows[i].ms * (1 + relative[i]):.3g} ms for {rows[i].name}, "
        f"not {rows[i].ms:.3g} ms; time it again"
        for i in suspects
    ]
