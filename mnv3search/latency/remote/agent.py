"""The board's end of a measurement over ssh: this one file is sent there and run from memory.

It needs Python 3.8, the standard library, and in functions numpy and onnxruntime. It reads frames on stdin and answers
each on stdout, opens no port, writes no file, runs nothing but these requests, and ends when stdin closes.

A frame is four bytes, the big-endian length of a JSON object; that object, whose ``payload`` is a number of bytes; and
these bytes. Requests, by their ``ask``:

- ``hello``: the protocol's version, Python, onnxruntime, the CPU, the load, and which packages are missing;
- ``prepare``: ``id``, ``threads``, ``shape``, ``kind`` (``<f4`` or ``u1``) and ``graph``, the bytes of the ONNX model
  with which the payload begins; the input's values follow;
- ``time``: ``ids``, each run once, in this order; answers ``seconds``;
- ``output``: ``id``; answers ``shape`` and float32 values;
- ``bye``.

Any request may carry ``drop``, ids of sessions to forget before it is answered. What fails is answered by ``error``.
"""

from __future__ import annotations

import gc
import json
import math
import os
import platform
import struct
import sys
import time
from typing import Any, BinaryIO, Callable, Dict, Optional, Tuple  # noqa: UP035  # for Python 3.8

PROTOCOL = 1
MARKER = b"\n<mnv3search agent>\n"  # ends whatever the board's login files print
MAX_HEADER = 1 << 20
MAX_PAYLOAD = 1 << 28
MAX_SESSIONS = 1_024
MAX_TURNS = 4_096
MAX_ERROR = 2_000
MAX_RESOLUTION = 1e-6  # seconds: a hundredth of the smallest block

Header = Dict[str, Any]  # noqa: UP006
Answer = Tuple[Header, bytes]  # noqa: UP006


def pack(header: Header, payload: bytes = b"") -> bytes:
    """One frame."""
    text = json.dumps(dict(header, payload=len(payload))).encode()
    return struct.pack(">I", len(text)) + text + payload


def unpack(read: Callable[[int], bytes]) -> Optional[Answer]:  # noqa: UP045
    """The next frame by a ``read`` that gives exactly so many bytes, or fewer at the end; None at the end.

    Raises:
        ValueError: what comes is no frame, or one beyond the bounds.
    """
    prefix = read(4)
    if len(prefix) < 4:
        return None
    length = struct.unpack(">I", prefix)[0]
    if not 2 <= length <= MAX_HEADER:
        raise ValueError(f"a header of {length} bytes; at most {MAX_HEADER} are allowed")
    text = read(length)
    if len(text) < length:
        return None
    try:
        header = json.loads(text.decode())
    except (UnicodeDecodeError, ValueError, RecursionError):
        raise ValueError("a header that is not JSON") from None
    size = header.pop("payload", None) if isinstance(header, dict) else None
    if type(size) is not int or not 0 <= size <= MAX_PAYLOAD:
        raise ValueError(f"a header without a payload's size from 0 to {MAX_PAYLOAD}")
    payload = read(size)
    return None if len(payload) < size else (header, payload)


class Agent:
    """The sessions of one connection, and the answers to its requests."""

    def __init__(self) -> None:
        self._sessions: Dict[int, Session] = {}  # noqa: UP006

    def answer(self, header: Header, payload: bytes) -> Answer:
        """The answer to one request; an ``error`` where it fails."""
        asked = header.get("ask")
        answers = {"hello": self._hello, "prepare": self._prepare, "time": self._time, "output": self._output}
        try:
            if asked not in answers:
                raise ValueError(f"unknown request {str(asked)[:40]!r}")
            for key in header.get("drop", ()):
                self._sessions.pop(key, None)
            return answers[asked](header, payload)
        except Exception as error:  # whatever it is, the other side has to hear of it
            return {"error": f"{type(error).__name__}: {error}"[:MAX_ERROR]}, b""

    def _hello(self, _: Header, __: bytes) -> Answer:
        found: Header = {"protocol": PROTOCOL, "python": platform.python_version()}
        missing = []
        for package in ("numpy", "onnxruntime"):
            try:
                found[package] = __import__(package).__version__
            except ImportError:
                missing.append(package)
        machine = {
            "cpu": cpu_model(),
            "cores": os.cpu_count() or 1,
            "arch": platform.machine(),
            "usable": usable_cores(),
        }
        return dict(found, missing=missing, load=load_average(), **machine), b""

    def _prepare(self, header: Header, payload: bytes) -> Answer:
        if len(self._sessions) >= MAX_SESSIONS:
            raise ValueError(f"more than {MAX_SESSIONS} sessions at once")
        size = header["graph"]
        kind = header.get("kind", "<f4")
        if kind not in ("<f4", "u1"):
            raise ValueError("an input of an unknown kind")
        import numpy as np

        values = np.frombuffer(payload[size:], dtype=kind).reshape(header["shape"])
        image = np.ascontiguousarray(values.astype(np.uint8 if kind == "u1" else np.float32))
        self._sessions[header["id"]] = Session(payload[:size], image, header["threads"])
        return {}, b""

    def _time(self, header: Header, _: bytes) -> Answer:
        ids = header["ids"]
        if len(ids) > MAX_TURNS:
            raise ValueError(f"more than {MAX_TURNS} calls in one request")
        sessions = [self._sessions[key] for key in ids]
        gc.disable()  # Python's own garbage collector stays out of the timed calls
        try:
            return {"seconds": [session.time_once() for session in sessions]}, b""
        finally:
            gc.enable()

    def _output(self, header: Header, _: bytes) -> Answer:
        values = self._sessions[header["id"]].output()
        return {"shape": list(values.shape)}, values.astype("<f4").tobytes()


class Session:
    """A graph in onnxruntime's CPU provider, its input and output bound, so that a call moves no memory of its own."""

    def __init__(self, graph: bytes, image: Any, threads: int) -> None:
        import numpy as np
        import onnxruntime as ort

        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
        options.log_severity_level = 3
        # idle threads that spin take the cores from whatever is timed next
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        self._session = ort.InferenceSession(graph, options, providers=["CPUExecutionProvider"])
        entering, leaving = self._session.get_inputs()[0], self._session.get_outputs()[0]
        # kept here: the runtime works in the memory of these arrays and does not hold them itself
        self._image, self._result = image, np.zeros([len(image), *leaving.shape[1:]], dtype=np.float32)
        self._binding = self._session.io_binding()
        self._binding.bind_ortvalue_input(entering.name, ort.OrtValue.ortvalue_from_numpy(image))
        self._binding.bind_ortvalue_output(leaving.name, ort.OrtValue.ortvalue_from_numpy(self._result))
        self._clock = clock_of(threads)

    def time_once(self) -> float:
        """Seconds of one call."""
        start = self._clock()
        self._session.run_with_iobinding(self._binding)
        return self._clock() - start

    def output(self) -> Any:
        """The output of one more call, a float32 array."""
        self._session.run_with_iobinding(self._binding)
        return self._result.copy()


def clock_of(threads: int) -> Callable[[], float]:
    """The clock, in seconds, of a runtime that works in so many threads.

    At one thread, in the caller's, it is that thread's CPU time: what a call takes when nothing else wants the core. A
    call that the system sets aside for another program's sake is otherwise counted several times too long. At more
    threads, and where the CPU time is coarse (Windows), it is the wall's.
    """
    fine = time.get_clock_info("thread_time").resolution <= MAX_RESOLUTION
    return time.thread_time if threads == 1 and fine else time.perf_counter


def cpu_model(cpuinfo: str = "/proc/cpuinfo") -> str:
    """The CPU as the system names it, found as on the machine that asks."""
    try:
        with open(cpuinfo, encoding="utf-8", errors="replace") as file:
            fields = [line.partition(":") for line in file]
    except OSError:  # not Linux: the platform's own answer has to do
        fields = []
    named = [value.strip() for name, _, value in fields if name.strip() in {"model name", "Hardware", "Model"}]
    return next((model for model in named if model), "") or platform.processor() or platform.machine()


def usable_cores() -> int:
    """Logical cores that this process may run on."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


def load_average() -> Optional[float]:  # noqa: UP045
    """How many programs wanted a core within the last minute; None where the system does not say."""
    try:
        load = os.getloadavg()[0]
    except (AttributeError, OSError):
        return None
    return load if math.isfinite(load) else None


def serve(source: BinaryIO, sink: BinaryIO) -> None:
    """Answer the frames of ``source`` on ``sink`` until it ends or says ``bye``."""
    agent = Agent()
    sink.write(MARKER)
    sink.flush()
    while True:
        frame = unpack(source.read)
        if frame is None or frame[0].get("ask") == "bye":
            return
        sink.write(pack(*agent.answer(*frame)))
        sink.flush()


def main() -> None:
    """Serve on stdin and stdout, which from here on carries frames alone: a library that prints, prints to stderr."""
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"  # onnxruntime 1.29 and newer else write files and report on every graph
    sink = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    sys.stdout = sys.stderr
    try:
        serve(sys.stdin.buffer, sink)
    except (BrokenPipeError, KeyboardInterrupt):
        os._exit(1)  # nobody is there to read what closing the stream would still write
    except ValueError as error:
        sys.exit(f"mnv3search agent: {error}")


if __name__ == "__main__":
    main()
