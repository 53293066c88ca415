"""onnxruntime on a board that ssh reaches: what it times, and what it says of itself, checked."""

from __future__ import annotations

import math
import weakref
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from mnv3search.errors import DeviceError, MeasurementError
from mnv3search.latency.keys import Fingerprint
from mnv3search.latency.remote.address import check_python, parse_address
from mnv3search.latency.remote.agent import MAX_PAYLOAD, MAX_TURNS, PROTOCOL, Answer
from mnv3search.latency.remote.channel import PATIENCE, Channel, Patience, printable
from mnv3search.latency.runtimes.base import (
    LONGEST_CALL,
    SHORTEST_CALL,
    Image,
    Precision,
    Session,
    Subject,
    input_image,
)
from mnv3search.latency.runtimes.int8 import graph_in
from mnv3search.latency.runtimes.registry import check_options

MAX_CORES = 100_000
MAX_LOAD = 1e6
MAX_NAME = 200
MAX_DIMENSIONS = 8


class Board(NamedTuple):
    """What a board says about itself: its machine, cores that the agent may use, onnxruntime's version, and its load.

    ``load_average`` is how many programs wanted a core in the minute before; None where it does not say.
    """

    machine: Fingerprint
    usable_cores: int
    version: str
    load_average: float | None


class RemoteRuntime:
    """Times graphs in onnxruntime's CPU provider on a board, with the same graphs, options and clock as here.

    ``connect`` opens a connection to the board's agent; it is called again where that was lost.
    """

    name = "onnxruntime"

    def __init__(self, connect: Callable[[], Channel], threads: int = 1, precision: Precision = "fp32") -> None:
        self._connect = connect
        self.threads = threads
        self.precision = precision
        self._ids = 0
        self._dropped: deque[int] = deque()
        self.channel = connect()
        self.machine, cores, self.version, self.load_average = greeting(self.channel)
        if threads > cores:
            self.channel.close()
            raise DeviceError(
                f"threads is {threads}, but {self.channel.address} has {cores} cores to give; "
                f"threads that wait for one another measure nothing: ask for fewer"
            )

    def _reconnect(self) -> None:
        """Open the connection again if it was lost; the sessions of the old one are gone."""
        if self.channel.alive:
            return
        channel = self._connect()
        board = greeting(channel)
        if (board.machine, board.version) != (self.machine, self.version):
            channel.close()
            raise MeasurementError(
                f"{channel.address} is now {board.machine} with onnxruntime {board.version}, "
                f"and was {self.machine} with {self.version}; their times are not mixed: start again"
            )
        self.channel, self.load_average = channel, board.load_average

    def prepare(self, subject: Subject) -> Session:
        """A session on the board; it is freed there after the last reference to it here is gone."""
        return self.load(graph_in(subject, self.precision), input_image(subject), str(subject))

    def load(self, graph: bytes, image: NDArray[Any], what: str) -> Session:
        """A session of any graph of one input on the board, connected anew where the connection was lost.

        Raises:
            MeasurementError: the board refuses the graph, or stopped answering.
        """
        kind = "u1" if image.dtype == np.uint8 else "<f4"
        payload = graph + image.astype(kind).tobytes()
        if len(payload) > MAX_PAYLOAD:
            raise MeasurementError(
                f"the graph of {what} takes {len(payload)} bytes; at most {MAX_PAYLOAD} are sent to a board"
            )
        self._reconnect()
        self._ids += 1
        request = {"id": self._ids, "graph": len(graph), "shape": list(image.shape), "kind": kind}
        try:
            self._ask("prepare", request | {"threads": self.threads}, payload)
        except MeasurementError as error:
            if not self.channel.alive:
                raise
            raise MeasurementError(f"onnxruntime {self.version} refuses the graph of {what}: {error}") from None
        return RemoteSession(self, self._ids)

    def time_in_turn(self, sessions: Sequence[Session]) -> list[float]:
        """Each session run once on the board, in this order, in as few requests as may be; seconds."""
        ids = [self._id_of(session) for session in sessions]
        found: list[float] = []
        for first in range(0, len(ids), MAX_TURNS):
            found += self._times(ids[first : first + MAX_TURNS])
        return found

    def _id_of(self, session: Session) -> int:
        if isinstance(session, RemoteSession) and session.channel is self.channel:
            return session.number
        raise MeasurementError(
            f"a session was prepared elsewhere than on {self.channel.address}, or before the connection was lost; "
            f"prepare it again"
        )

    def _times(self, ids: list[int]) -> list[float]:
        seconds = self._ask("time", {"ids": ids}, calls=len(ids))[0].get("seconds")
        if not isinstance(seconds, list) or len(seconds) != len(ids):
            raise self.channel.refuse(f"no list of {len(ids)} times")
        for one in seconds:
            if not (type(one) in {int, float} and SHORTEST_CALL <= one <= LONGEST_CALL):
                raise self.channel.refuse(
                    f"{printable(repr(one))} s for one call, where {SHORTEST_CALL:g} to {LONGEST_CALL:g} are possible"
                )
        return [float(one) for one in seconds]

    def output_of(self, session: Session) -> Image:
        """The output of one more call of a session."""
        fields, values = self._ask("output", {"id": self._id_of(session)}, calls=1)
        shape = fields.get("shape")
        if (
            not isinstance(shape, list)
            or len(shape) > MAX_DIMENSIONS
            or not all(type(size) is int and size > 0 for size in shape)
            or 4 * math.prod(shape) != len(values)
        ):
            raise self.channel.refuse(f"{len(values)} bytes of an array of shape {printable(shape)}")
        return np.frombuffer(values, dtype="<f4").astype(np.float32).reshape(shape)

    def forget(self, number: int) -> None:
        """Let the board free a session with the next request."""
        self._dropped.append(number)

    def _ask(self, asked: str, request: dict[str, Any], payload: bytes = b"", calls: int = 0) -> Answer:
        drop = [self._dropped.popleft() for _ in range(len(self._dropped))]
        return self.channel.ask({"ask": asked, "drop": drop, **request}, payload, calls)

    def close(self) -> None:
        """End the connection; the board keeps nothing."""
        self.channel.close()


class RemoteSession:
    """A unit or network that is prepared on a board."""

    def __init__(self, runtime: RemoteRuntime, number: int) -> None:
        self.runtime, self.channel, self.number = runtime, runtime.channel, number
        weakref.finalize(self, runtime.forget, number).atexit = False

    def time_once(self) -> float:
        """Seconds of one call on the board; a request of its own."""
        return self.runtime.time_in_turn([self])[0]

    def output(self) -> Image:
        """The output of one more call there."""
        return self.runtime.output_of(self)


def open_remote(
    address: str,
    *,
    threads: int = 1,
    precision: Precision = "fp32",
    python: str = "python3",
    options: Sequence[str] = (),
    patience: Patience = PATIENCE,
) -> RemoteRuntime:
    """The runtime on the board at ``[user@]host[:port]``, reached by the user's own ssh.

    Args:
        address: of the board; IPv6 in brackets; a ``Host`` of ``~/.ssh/config`` serves as well.
        threads: of one call there.
        precision: ``fp32`` or ``int8``.
        python: name or path of the interpreter on the board that has numpy and onnxruntime.
        options: more words for ssh, such as ``("-F", "config")``.
        patience: how long the board may take.

    Raises:
        DeviceError: one of these is invalid; the board cannot be reached, lacks Python, numpy or onnxruntime.
    """
    check_options(threads, precision)
    where, interpreter = parse_address(address), check_python(python)
    return RemoteRuntime(partial(Channel, where, interpreter, options, patience), threads, precision)


def greeting(channel: Channel) -> Board:
    """What the agent says about its board, checked; the channel is closed where it cannot serve."""
    try:
        return _board(channel.ask({"ask": "hello"})[0], channel)
    except BaseException:
        channel.close()
        raise


def _board(fields: Mapping[str, Any], channel: Channel) -> Board:
    address, python, missing = channel.address, channel.python, fields.get("missing")
    if fields.get("protocol") != PROTOCOL:
        theirs = printable(repr(fields.get("protocol")))
        raise DeviceError(f"the agent on {address} speaks protocol {theirs}, not {PROTOCOL}; install mnv3search again")
    if missing:
        names = printable(" and ".join(map(str, missing)) if isinstance(missing, list) else missing)
        raise DeviceError(
            f"{python} on {address} lacks {names}; run there: {python} -m pip install numpy onnxruntime; "
            f"or name the interpreter that has them: ssh://{address},python=/path/to/python3"
        )
    texts = [fields.get(key) for key in ("cpu", "arch", "onnxruntime")]
    counts: list[Any] = [fields.get(key) for key in ("cores", "usable")]
    named = [printable(text)[:MAX_NAME] if isinstance(text, str) else "" for text in texts]
    if not all(named) or not all(type(count) is int and 1 <= count <= MAX_CORES for count in counts):
        raise channel.refuse("no description of its machine")
    (cpu, arch, version), (cores, usable), load = named, counts, fields.get("load")
    known = isinstance(load, float) and 0 <= load <= MAX_LOAD
    return Board(Fingerprint(cpu, cores, arch), usable, version, load if known else None)
