"""The line to a board: ssh as a child process, frames over its pipes, every wait and every size bounded."""

from __future__ import annotations

import contextlib
import os
import selectors
import subprocess
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import IO, Any

from mnv3search.errors import DeviceError, MeasurementError
from mnv3search.latency.remote.address import Address
from mnv3search.latency.remote.agent import MARKER, MAX_HEADER, MAX_PAYLOAD, pack, unpack
from mnv3search.latency.remote.failures import never_started, printable, stopped

MAX_NOISE = 1 << 16  # bytes that a board's login files may print before the agent's first
MAX_STDERR = 1 << 13  # of ssh's and the board's messages, the last so many bytes
CHUNK = 1 << 16
LENGTH_DIGITS = 10
CLOSING_SECONDS = 2.0
# Reads the agent's source from stdin and runs it, so that nothing is left on the board. In single quotes for any shell.
BOOTSTRAP = (
    'import sys;sys.version_info>=(3,8)or sys.exit("Python 3.8 or newer is needed, this is "+sys.version.split()[0]);'
    f'r=sys.stdin.buffer.read;exec(compile(r(int(r({LENGTH_DIGITS}))),"agent","exec"),{{"__name__":"__main__"}})'
)


@dataclass(frozen=True, slots=True)
class Patience:
    """How many seconds a board may take: to start the agent, to answer a request, and for one timed call in it."""

    start: float = 60.0
    reply: float = 120.0
    call: float = 10.0


@dataclass(frozen=True, slots=True)
class Reply:
    """What a board answered; a mapping from JSON whose values are yet to be checked, and bytes."""

    fields: Mapping[str, Any]
    payload: bytes


class Channel:
    """A board on which the agent runs.

    Args:
        address: where the board is.
        python: its interpreter there, already checked.
        options: more words for ssh, before all others.
        patience: how long to wait.

    Raises:
        DeviceError: there is no ssh here, or the board cannot be reached, or the agent does not start there.
    """

    def __init__(
        self, address: Address, python: str = "python3", options: Sequence[str] = (), patience: Patience | None = None
    ) -> None:
        self.address = address
        self.python = python
        self.patience = patience or Patience()
        words = address.command(f"{python} -c '{BOOTSTRAP}'", options)
        self._inbox, self._stderr = bytearray(), bytearray()
        self._process = started(words)
        self._close = weakref.finalize(self, end, self._process)
        self._start()

    @property
    def alive(self) -> bool:
        """Whether requests can still be sent."""
        return self._close.alive

    def close(self) -> None:
        """End ssh, and with it the agent."""
        self._close()

    def _start(self) -> None:
        source = files(__package__).joinpath("agent.py").read_bytes()
        deadline = time.monotonic() + self.patience.start
        try:
            self._send(b"%0*d" % (LENGTH_DIGITS, len(source)) + source, deadline)
            while (place := self._inbox.find(MARKER)) < 0:
                if len(self._inbox) > MAX_NOISE:
                    raise _Broken("noise")
                self._receive(deadline)
        except _Broken as broken:
            code = self._ended(broken.why)
            raise DeviceError(never_started(self.address, self.python, broken.why, code, self._messages())) from None
        del self._inbox[: place + len(MARKER)]

    def ask(self, request: Mapping[str, Any], payload: bytes = b"", calls: int = 0) -> Reply:
        """Send a request, wait for its answer; ``calls`` is how many timed calls the board makes for it.

        Raises:
            MeasurementError: the board stopped answering, or answered what is no reply; the channel is then closed.
                Or it said that the request failed; the channel then stays.
        """
        if not self.alive:
            raise MeasurementError(stopped(self.address, "closed", None, ""))
        deadline = time.monotonic() + self.patience.reply + calls * self.patience.call
        try:
            self._send(pack(dict(request), payload), deadline)
            reply = self._reply(deadline)
        except _Broken as broken:
            code = self._ended(broken.why)
            raise MeasurementError(stopped(self.address, broken.why, code, self._messages())) from None
        except BaseException:  # interrupted between a request and its reply: the next reply would be another's
            self.close()
            raise
        if "error" in reply.fields:
            raise MeasurementError(f"{self.address} could not do what was asked: {printable(reply.fields['error'])}")
        return reply

    def refuse(self, what: str) -> MeasurementError:
        """The error to raise where a reply is not what was asked for; the channel is closed."""
        self.close()
        return MeasurementError(stopped(self.address, f"it answered {what}", None, ""))

    def _reply(self, deadline: float) -> Reply:
        def read(size: int) -> bytes:
            while len(self._inbox) < size:
                self._receive(deadline)
            taken = bytes(self._inbox[:size])
            del self._inbox[:size]
            return taken

        try:
            frame = unpack(read)
        except ValueError as error:
            raise _Broken(f"it sent {error}") from None
        if frame is None:
            raise _Broken("it sent nothing")
        return Reply(*frame)

    def _send(self, data: bytes, deadline: float) -> None:
        view, pipe = memoryview(data), _pipe(self._process.stdin)
        while view:
            self._wait(pipe, selectors.EVENT_WRITE, deadline)
            try:
                view = view[os.write(pipe.fileno(), view[:CHUNK]) :]
            except BlockingIOError:
                continue
            except OSError:  # ssh has ended
                raise _Broken("ended") from None

    def _receive(self, deadline: float) -> None:
        pipe = _pipe(self._process.stdout)
        self._wait(pipe, selectors.EVENT_READ, deadline)
        data = _read(pipe)
        if data == b"":
            raise _Broken("ended")
        self._inbox += data or b""
        if len(self._inbox) > MAX_HEADER + MAX_PAYLOAD + CHUNK:
            raise _Broken("it sent more than one reply")

    def _wait(self, pipe: IO[bytes], event: int, deadline: float) -> None:
        """Until ``pipe`` is ready; meanwhile what ssh says on stderr is kept, so that it never has to wait."""
        errors = _pipe(self._process.stderr)
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, event)
            selector.register(errors, selectors.EVENT_READ)
            while (left := deadline - time.monotonic()) > 0:
                ready = [key.fileobj for key, _ in selector.select(left)]
                if errors in ready and self._keep_errors() == b"":
                    selector.unregister(errors)
                if pipe in ready:
                    return
        raise _Broken("time")

    def _keep_errors(self) -> bytes | None:
        data = _read(_pipe(self._process.stderr))
        self._stderr += data or b""
        del self._stderr[:-MAX_STDERR]
        return data

    def _messages(self) -> str:
        return self._stderr.decode("utf-8", errors="replace")

    def _ended(self, why: str) -> int | None:
        """Close; how ssh ended, and None where it was still running."""
        code: int | None = None
        if why == "ended":
            with contextlib.suppress(_Broken, subprocess.TimeoutExpired):
                self._read_to_the_end(time.monotonic() + CLOSING_SECONDS)
                code = self._process.wait(CLOSING_SECONDS)
        for _ in range(MAX_STDERR):
            if not self._keep_errors():
                break
        self.close()
        return code

    def _read_to_the_end(self, deadline: float) -> None:
        """Throw away what is left on stdout; after its end ssh ends as well, and its code says why."""
        pipe = _pipe(self._process.stdout)
        data: bytes | None = None
        while data != b"":
            self._wait(pipe, selectors.EVENT_READ, deadline)
            data = _read(pipe)


class _Broken(Exception):
    """The line cannot be used any more: ``why`` is ``ended``, ``time``, ``noise``, or a phrase."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def started(words: Sequence[str]) -> subprocess.Popen[bytes]:
    """A child process with three pipes that never block, in a session of its own.

    An interrupt from the keyboard then ends this program, which closes the line, and not ssh under its hands.

    Raises:
        DeviceError: the program is not installed.
    """
    try:
        process = subprocess.Popen(
            words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
            start_new_session=True,
        )  # fmt: skip
    except OSError as error:
        raise DeviceError(
            f"a board is reached by the program ssh, which cannot be run here ({error.strerror}); "
            f"install it: apt-get install openssh-client"
        ) from None
    for pipe in (process.stdin, process.stdout, process.stderr):
        os.set_blocking(_pipe(pipe).fileno(), False)
    return process


def end(process: subprocess.Popen[bytes]) -> None:
    """Close the pipes, by which the agent ends, and see that the process ends too."""
    for pipe in (process.stdin, process.stdout, process.stderr):
        with contextlib.suppress(OSError):
            _pipe(pipe).close()
    process.terminate()
    try:
        process.wait(CLOSING_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise ValueError("the process was started without pipes")
    return pipe


def _read(pipe: IO[bytes]) -> bytes | None:
    """What is there; empty at the end, None where there is nothing yet."""
    try:
        return os.read(pipe.fileno(), CHUNK)
    except BlockingIOError:
        return None
    except OSError:
        return b""
