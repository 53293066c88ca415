"""Times of whole networks that a user brings: which network each row is, in milliseconds."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mnv3search.architecture import Architecture
from mnv3search.cost.units import units
from mnv3search.errors import ArchitectureError, MeasurementError, UnknownNameError
from mnv3search.families import parse_network
from mnv3search.latency.fitted.fitted import MIN_NETWORKS
from mnv3search.latency.fitted.time_rows import TimeRow, averaged, check_magnitudes, read_times
from mnv3search.latency.fitted.unit_prices import MAX_SUMS


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
    by_network: dict[Architecture, list[TimeRow]] = {}
    for row in file.rows:
        by_network.setdefault(_network(path, row), []).append(row)
    notices = list(file.notices)
    rows = tuple(averaged(path, same, notices) for same in by_network.values())
    if not MIN_NETWORKS <= len(rows) <= MAX_SUMS:
        raise MeasurementError(
            f"{path} has {len(rows)} networks; a device is fitted to {MIN_NETWORKS} to {MAX_SUMS}, "
            "the more and the more different, the better"
        )
    notices += check_magnitudes(path, rows, [units(a) for a in by_network])
    return NetworkTimes(tuple(by_network), rows, tuple(notices))


def _network(path: Path, row: TimeRow) -> Architecture:
    name = str(path.parent / row.name) if row.name.endswith(".json") else row.name
    try:
        return parse_network(name)
    except (ArchitectureError, UnknownNameError) as error:
        raise MeasurementError(f"{path}, {row.where}: {error}") from None


def suspect_notices(rows: Sequence[TimeRow], suspects: Sequence[int], relative: Sequence[float]) -> list[str]:
    """A sentence for each row that lies far from what the other rows say; ``relative`` is predicted over timed, - 1."""
    return [
        f"{rows[i].where}: the other rows say {rows[i].ms * (1 + relative[i]):.3g} ms for {rows[i].name}, "
        f"not {rows[i].ms:.3g} ms; time it again"
        for i in suspects
    ]
