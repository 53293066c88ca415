"""Times that users bring, from any machine and tool, in CSV files or in memory: read, in milliseconds, checked.

Rows name whole networks (:func:`read_network_times`) or files of exported layers (``layer_files``).
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from mnv3search.architecture import Architecture
from mnv3search.errors import MeasurementError, Mnv3SearchError
from mnv3search.latency.estimated import FEATURE_NAMES, unit_features
from mnv3search.latency.fitted.unit_prices import MAX_SUMS, MIN_NETWORKS
from mnv3search.layers import Unit, units
from mnv3search.naming import parse_network
from mnv3search.reading import read_bounded, utf8
from mnv3search.records import real

if TYPE_CHECKING:
    from pandas import DataFrame

MAX_BYTES = 5_000_000
MAX_ROWS = 20_000
MAX_COLUMNS = 1_000
MAX_NAME = 1_000
MAX_MS = 1e7
FAR_APART = 300.0  # times what others of like work take: no real layer or network is, a wrong unit is
SLOWEST, FASTEST = 0.01, 50_000.0  # GMAdds a second, between which any device runs
REPEATS_AGREE = 0.1
_SHOWN = 5  # names or lines in a message
_FACTORS = {"ms": 1.0, "us": 1e-3, "s": 1e3}
_COLUMNS = {f"{prefix}{unit}": unit for prefix in ("", "latency_", "time_") for unit in _FACTORS}
_MINIMA = {f"minimum_{unit}": unit for unit in _FACTORS}


@dataclass(frozen=True, slots=True)
class TimeRow:
    """Milliseconds of one timed thing; of several rows with its name, their mean and least minimum.

    Attributes:
        name: as written in the first column that names it.
        ms: usual time.
        minimum_ms: the fastest, where the file has it.
        lines: the file's lines.
        line: what one of these is called.
    """

    name: str
    ms: float
    minimum_ms: float | None
    lines: tuple[int, ...]
    line: str = "line"

    @property
    def where(self) -> str:
        """``line 7`` or ``lines 7 and 9``."""
        return f"{self.line}{'s' * (len(self.lines) > 1)} {listed(self.lines)}"


def listed(things: Sequence[object]) -> str:
    """``a, b and c`` for a message; of more than five, how many more."""
    shown = list(map(str, things[:_SHOWN]))
    shown += [f"{len(things) - _SHOWN} more"] if len(things) > _SHOWN else []
    return " and ".join([", ".join(shown[:-1]), shown[-1]]) if len(shown) > 1 else "".join(shown)


@dataclass(frozen=True, slots=True)
class TimeFile:
    """The rows of a file, each name once, in order; and notices about it for the user."""

    path: Path
    rows: tuple[TimeRow, ...]
    notices: tuple[str, ...]


def read_times(path: Path, name_columns: Sequence[str]) -> TimeFile:
    """The rows of a CSV file with a column of names and one of times.

    A column of times is named ``ms``, ``us`` or ``s`` (or ``latency_ms``, ``time_ms`` and so on), that of minima
    ``minimum_ms``, ``minimum_us`` or ``minimum_s``; other columns are not read. Rows of one name that agree within
    10 % are averaged, with a notice; rows that do not are refused, as are all that are not whole.
    """
    try:
        text = utf8(read_bounded(path, MAX_BYTES))
    except OSError as error:
        raise MeasurementError(f"cannot read the times {path}: {error.strerror or error}; check the path") from None
    except ValueError as error:
        raise MeasurementError(f"cannot read the times {path}: {error}") from None
    notices = [] if text.endswith(("\n", "\r")) else [f"{path} ends within a line; check that it was not cut short"]
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    found: dict[str, list[TimeRow]] = {}
    try:
        header = next(reader, [])
        columns = time_columns(path, header, name_columns)
        for cells in reader:
            if any(cell.strip() for cell in cells):
                row = _row(f"{path}, line {reader.line_num}", reader.line_num, cells, columns)
                found.setdefault(row.name, []).append(row)
            if reader.line_num > MAX_ROWS:
                raise MeasurementError(f"{path} has more than {MAX_ROWS} lines; give one line for each thing timed")
    except csv.Error as error:
        raise MeasurementError(f"{path}, line {reader.line_num} is no CSV ({error}); mend or remove it") from None
    return TimeFile(path, tuple(averaged(str(path), rows, notices) for rows in found.values()), tuple(notices))


def averaged(source: str, rows: Sequence[TimeRow], notices: list[str]) -> TimeRow:
    """The mean of rows of one thing that agree within 10 %; ``notices`` gains a sentence where there are several."""
    if len(rows) == 1:
        return rows[0]
    times, minima = [row.ms for row in rows], [row.minimum_ms for row in rows if row.minimum_ms is not None]
    lines = tuple(n for row in rows for n in row.lines)
    merged = TimeRow(rows[0].name, sum(times) / len(times), min(minima, default=None), lines, rows[0].line)
    if max(times) > (1 + REPEATS_AGREE) * min(times):
        raise MeasurementError(
            f"{source}, {merged.where}: {merged.name} takes {min(times):g} ms and {max(times):g} ms; "
            f"repeats must agree within {REPEATS_AGREE:.0%}: time it again and keep one row"
        )
    notices.append(f"{merged.where} of {source} are of one network or layer, {merged.name}: their mean is taken")
    return merged


def check_magnitudes(source: str, rows: Sequence[TimeRow], parts: Sequence[Sequence[Unit]]) -> list[str]:
    """Refuse rows in another unit than the rest; a notice where all seem to be. ``parts`` are the units of each row."""
    counts = [np.sum([unit_features(unit) for unit in units], axis=0) for units in parts]
    madds, elements = (np.array(counts)[:, FEATURE_NAMES.index(name)] for name in ("madds", "elements"))
    work = madds + 10 * elements
    times = np.array([row.ms for row in rows])
    # all have a share of overhead on top of their work, so that tiny ones are no alarm
    ms_per_work = times / (work + 0.1 * np.median(work))
    relative = ms_per_work / np.median(ms_per_work)
    odd = [row for row, r in zip(rows, relative, strict=True) if not 1 / FAR_APART < r < FAR_APART]
    if odd:
        raise MeasurementError(
            f"{source}, {listed([row.where for row in odd])}: {odd[0].name} at {odd[0].ms:g} ms is over {FAR_APART:g} "
            "times off what its work suggests by the other rows; give all times in one unit and name the column "
            "ms, us or s"
        )
    speed = float(np.median(madds / times))
    if SLOWEST < speed < FASTEST:
        return []
    return [f"{source} has {speed:.3g} GMAdds a second, which no usual device does; are its times in that unit?"]


class Columns(NamedTuple):
    """Positions of names, times and minima; and what one of the latter two's units is in milliseconds."""

    name: int
    time: int
    factor: float
    minimum: int | None
    minimum_factor: float
    width: int


def time_columns(path: Path | str, header: Sequence[str], name_columns: Sequence[str]) -> Columns:
    """The columns that ``header`` names."""
    if len(header) > MAX_COLUMNS:
        raise MeasurementError(f"{path} has {len(header)} columns; a file of times has at most {MAX_COLUMNS}")
    found = [cell.strip().lower() for cell in header]
    names = [found.index(name) for name in name_columns if name in found]
    times = [(found.index(name), _FACTORS[unit]) for name, unit in _COLUMNS.items() if name in found]
    minima = [(found.index(name), _FACTORS[unit]) for name, unit in _MINIMA.items() if name in found]
    if names and len(times) == 1 and len(minima) <= 1 and len(set(found)) == len(found):
        minimum, minimum_factor = minima[0] if minima else (None, 1.0)
        return Columns(names[0], *times[0], minimum, minimum_factor, len(found))
    wanted = f"the first line must name a column {' or '.join(name_columns)} and one column of times: ms, us or s"
    text = ", ".join(found)
    fault = "it has no such column of names" if not names else "it has no column of times" if not times else ""
    remedy = "; separate them by commas" if ";" in text or "\t" in text else ""
    start = shown(text, 200) or "nothing"
    raise MeasurementError(f"{path} begins with {start}: {fault or 'a column is there twice'}; {wanted}{remedy}")


def _row(where: str, line: int, cells: Sequence[str], columns: Columns) -> TimeRow:
    if len(cells) != columns.width:
        raise MeasurementError(
            f"{where} has {len(cells)} columns where the first line has {columns.width}; complete or remove that line"
        )
    name = cells[columns.name].strip()
    if not name:
        raise MeasurementError(f"{where} names nothing; complete or remove that line")
    if len(name) > MAX_NAME or not name.isprintable():
        raise MeasurementError(
            f"{where}: {shown(name, 40)} is no name of a network or file; these have at most {MAX_NAME} characters, "
            "none of them control characters"
        )
    ms = _milliseconds(where, cells[columns.time], columns.factor)
    if columns.minimum is None or not cells[columns.minimum].strip():
        return TimeRow(name, ms, None, (line,))
    least = _milliseconds(where, cells[columns.minimum], columns.minimum_factor)
    if least > ms:
        raise MeasurementError(f"{where}: a minimum of {least:g} ms above the time of {ms:g} ms; are both right?")
    return TimeRow(name, ms, least, (line,))


def shown(text: str, most: int) -> str:
    """``text`` for a message: no longer than ``most``, control characters escaped."""
    return repr(text[:most])[1:-1] if len(text) > most or not text.isprintable() else text


def _milliseconds(where: str, text: str, factor: float) -> float:
    try:
        ms = float(text if text.isascii() and "_" not in text else "") * factor
    except ValueError:
        raise MeasurementError(f"{where}: time {text.strip()!r:.40} is no number; write one such as 12.34") from None
    if not (math.isfinite(ms) and 0 < ms <= MAX_MS):
        raise MeasurementError(f"{where}: time {text.strip()!r:.40} must be finite, above 0 and at most {MAX_MS:g} ms")
    return ms


@dataclass(frozen=True, slots=True)
class NetworkTimes:
    """Distinct networks and their rows, in order; and notices for the user."""

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
    """
    file = read_times(path, ("architecture",))
    names = (str(path.parent / row.name) if row.name.endswith(".json") else row.name for row in file.rows)
    entries = ((_network(f"{path}, {row.where}", name), row) for name, row in zip(names, file.rows, strict=True))
    return _gathered(str(path), entries, file.notices)


def network_times(timings: Iterable[object] | DataFrame) -> NetworkTimes:
    """The networks of timings in memory: see :func:`~mnv3search.latency.fitted.device.fit_device`."""
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
    found = list(notices)
    rows = tuple(averaged(source, same, found) for same in by_network.values())
    found += check_magnitudes(source, rows, [units(a) for a in by_network])
    return NetworkTimes(tuple(by_network), rows, tuple(found))


def _network(where: str, name: str) -> Architecture:
    try:
        return parse_network(name)
    except Mnv3SearchError as error:
        raise MeasurementError(f"{where}: {error}") from None


def _rows_of_table(table: Any) -> Iterable[tuple[object, object]]:
    columns = time_columns("the table of timings", list(map(str, table.columns)), ("architecture",))
    for network, value in zip(table.iloc[:, columns.name], table.iloc[:, columns.time], strict=True):
        time = real(value)
        yield network, value if time is None else time * columns.factor


def _pair(source: str, word: str, at: int, pair: object) -> tuple[Architecture, TimeRow]:
    where = f"{source}, {word} {at}"
    if not isinstance(pair, Sequence) or isinstance(pair, str) or len(pair) != 2:
        raise MeasurementError(f"{where} is {pair!r:.80}; it must be a pair of a network and its milliseconds")
    network, value = pair
    ms = real(value)
    if not isinstance(network, (Architecture, str, Path)):
        raise MeasurementError(f"{where} names {network!r:.80}; give an Architecture, a network's name or a path")
    if ms is None or not 0 < ms <= MAX_MS:
        raise MeasurementError(
            f"{where}: a time of {value!r:.80}; it must be milliseconds, above 0, at most {MAX_MS:g}"
        )
    found = network if isinstance(network, Architecture) else _network(where, str(network))
    return found, TimeRow(str(network), ms, None, (at,), word)


def suspect_notices(rows: Sequence[TimeRow], suspects: Sequence[int], relative: Sequence[float]) -> list[str]:
    """A sentence for each row that lies far from what the other rows predict; ``relative`` is predicted/timed - 1."""
    return [
        f"{rows[i].where}: the other rows say {rows[i].ms * (1 + relative[i]):.3g} ms for {rows[i].name}, "
        f"not {rows[i].ms:.3g} ms; time it again"
        for i in suspects
    ]
