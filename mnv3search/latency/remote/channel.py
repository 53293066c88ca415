"""The connection to a board: ssh as a child process, frames over its pipes, every wait and every size bounded.

What goes wrong on the way is said in one line with what to do about it.
"""

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
from typing import IO, Any, cast

from mnv3search.errors import DeviceError, MeasurementError
from mnv3search.latency.remote.address import Address
from mnv3search.latency.remote.agent import MARKER, MAX_HEADER, MAX_PAYLOAD, Answer, pack, unpack

SSH_FAILED, NOT_FOUND, NOT_EXECUTABLE = 255, 127, 126
MAX_QUOTED = 300
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


PATIENCE = Patience()


class Channel:
    """A connection to the agent on a board.

    Args:
        address: where the board is.
        python: its interpreter there, already checked.
        options: more words for ssh, before all others.
        patience: how long to wait.

    Raises:
        DeviceError: there is no ssh here, or the board cannot be reached, or the agent does not start there.
    """

    def __init__(
        self, address: Address, python: str = "python3", options: Sequence[str] = (), patience: Patience = PATIENCE
    ) -> None:
        self.address, self.python, self.patience = address, python, patience
        self._inbox, self._errors = bytearray(), bytearray()
        self._process = _started(address.command(f"{python} -c '{BOOTSTRAP}'", options))
        self._stdin, self._stdout, self._stderr = _pipes(self._process)
        self._close = weakref.finalize(self, _end, self._process)
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
            while (marker := self._inbox.find(MARKER)) < 0:
                if len(self._inbox) > MAX_NOISE:
                    raise _Broken("noise")
                self._receive(deadline)
        except _Broken as broken:
            raise DeviceError(self._not_started(broken.why)) from None
        del self._inbox[: marker + len(MARKER)]

    def ask(self, request: Mapping[str, Any], payload: bytes = b"", calls: int = 0) -> Answer:
        """Send a request, wait for its answer; ``calls`` is how many timed calls the board makes for it.

        Raises:
            MeasurementError: the board stopped answering, or answered what is no frame; the channel is then closed.
                Or it said that the request failed; the channel then stays.
        """
        if not self.alive:
            raise MeasurementError(self._stopped("the connection is closed"))
        deadline = time.monotonic() + self.patience.reply + calls * self.patience.call
        try:
            self._send(pack(dict(request), payload), deadline)
            fields, answered = self._answer(deadline)
        except _Broken as broken:
            raise MeasurementError(self._broken_off(broken.why)) from None
        except BaseException:  # interrupted between a request and its answer: the next answer would be another's
            self.close()
            raise
        if "error" in fields:
            raise MeasurementError(f"{self.address} could not do what was asked: {printable(fields['error'])}")
        return fields, answered

    def refuse(self, what: str) -> MeasurementError:
        """The error to raise where an answer is not what was asked for; the channel is closed."""
        self.close()
        return MeasurementError(self._stopped(f"it answered {what}"))

    def _answer(self, deadline: float) -> Answer:
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
        return frame

    def _send(self, data: bytes, deadline: float) -> None:
        view = memoryview(data)
        while view:
            self._wait(self._stdin, selectors.EVENT_WRITE, deadline)
            try:
                view = view[os.write(self._stdin.fileno(), view[:CHUNK]) :]
            except BlockingIOError:
                continue
            except OSError:  # ssh has ended
                raise _Broken("ended") from None

    def _receive(self, deadline: float) -> None:
        self._wait(self._stdout, selectors.EVENT_READ, deadline)
        data = _read(self._stdout)
        if data == b"":
            raise _Broken("ended")
        self._inbox += data or b""
        if len(self._inbox) > MAX_HEADER + MAX_PAYLOAD + CHUNK:
            raise _Broken("it sent more than one reply")

    def _wait(self, pipe: IO[bytes], event: int, deadline: float) -> None:
        """Until ``pipe`` is ready; meanwhile what ssh says on stderr is kept, so that it never has to wait."""
        with selectors.DefaultSelector() as selector:
            selector.register(pipe, event)
            selector.register(self._stderr, selectors.EVENT_READ)
            while (left := deadline - time.monotonic()) > 0:
                ready = [key.fileobj for key, _ in selector.select(left)]
                if self._stderr in ready and self._keep_errors() == b"":
                    selector.unregister(self._stderr)
                if pipe in ready:
                    return
        raise _Broken("time")

    def _keep_errors(self) -> bytes | None:
        data = _read(self._stderr)
        self._errors += data or b""
        del self._errors[:-MAX_STDERR]
        return data

    def _closed(self, why: str) -> tuple[int | None, str]:
        """Close; how ssh ended, None where it was still running, and what it and the board said on stderr."""
        code: int | None = None
        if why == "ended":
            with contextlib.suppress(_Broken, subprocess.TimeoutExpired):
                deadline = time.monotonic() + CLOSING_SECONDS
                data: bytes | None = None
                while data != b"":  # the rest of stdout; after its end ssh ends as well, and its code says why
                    self._wait(self._stdout, selectors.EVENT_READ, deadline)
                    data = _read(self._stdout)
                code = self._process.wait(CLOSING_SECONDS)
        for _ in range(MAX_STDERR):
            if not self._keep_errors():
                break
        self.close()
        return code, self._errors.decode("utf-8", errors="replace")

    def _not_started(self, why: str) -> str:
        """Close; why the agent did not start on the board, and what to do."""
        code, messages = self._closed(why)
        address, where, said = self.address, self.address.destination, last_line(messages)
        quoted = f": {said}" if said else ""
        if why == "time":
            return (
                f"{address} was reached for but did not start the agent in time{quoted}; "
                f"does `ssh {where} true` return?"
            )
        if why == "noise":
            return f"{address} prints more than 64 KB before it runs a command; make its login files silent for ssh"
        if code == SSH_FAILED:
            return f"ssh does not get to {address}{quoted}; {_ssh_remedy(messages, where)}"
        if code in {NOT_FOUND, NOT_EXECUTABLE}:
            return (
                f"{address} has no {self.python}{quoted}; install Python 3.8 or newer with numpy and onnxruntime "
                f"there, or name the one that has them: ssh://{address},python=/path/to/python3"
            )
        said = quoted or f" (exit code {code})"
        return f"{address} does not run the agent{said}; does `ssh {where} {self.python} -V` work?"

    def _broken_off(self, why: str) -> str:
        """Close; why a board that was measuring gives no more answers."""
        code, messages = self._closed(why)
        if why == "time":
            return self._stopped("no reply in time")
        if why == "ended":
            reason = last_line(messages) or "the connection ended"
            return self._stopped(f"{reason}, ssh ended with {code}" if code else reason)
        return self._stopped(why)

    def _stopped(self, reason: str) -> str:
        return f"{self.address} stopped answering ({reason}); what was measured is kept: run it again to go on"


class _Broken(Exception):
    """The connection cannot be used any more: ``why`` is ``ended``, ``time``, ``noise``, or a phrase."""

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


def _started(words: Sequence[str]) -> subprocess.Popen[bytes]:
    """A child process with three pipes that never block, in a session of its own.

    An interrupt from the keyboard then ends this program, which closes the connection, and not ssh under its hands.
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
    for pipe in _pipes(process):
        os.set_blocking(pipe.fileno(), False)
    return process


def _end(process: subprocess.Popen[bytes]) -> None:
    """Close the pipes, by which the agent ends, and see that the process ends too."""
    for pipe in _pipes(process):
        with contextlib.suppress(OSError):
            pipe.close()
    process.terminate()
    try:
        process.wait(CLOSING_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def _pipes(process: subprocess.Popen[bytes]) -> tuple[IO[bytes], IO[bytes], IO[bytes]]:
    return cast("tuple[IO[bytes], IO[bytes], IO[bytes]]", (process.stdin, process.stdout, process.stderr))


def _read(pipe: IO[bytes]) -> bytes | None:
    """What is there; empty at the end, None where there is nothing yet."""
    try:
        return os.read(pipe.fileno(), CHUNK)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def printable(text: object) -> str:
    """One line of at most :data:`MAX_QUOTED` characters, without what a terminal would obey."""
    line = "".join(c if c.isprintable() else " " for c in str(text))
    return " ".join(line.split())[:MAX_QUOTED]


def last_line(messages: str) -> str:
    """The last line of ssh's and the board's messages that says something; the closing of a connection says little."""
    lines = [found for line in messages.splitlines() if (found := printable(line))]
    useful = [line for line in lines if not line.startswith(("Connection to ", "Connection closed by"))]
    return (useful or lines or [""])[-1].rstrip(".")


def _ssh_remedy(messages: str, where: str) -> str:
    if "HOST IDENTIFICATION HAS CHANGED" in messages:
        return "its host key is another than before: find out why before you trust it (ssh-keygen -R forgets a key)"
    if "Host key verification failed" in messages:
        return f"its host key is unknown here: run `ssh {where}` once and check and accept it"
    if "Permission denied" in messages or "Too many authentication failures" in messages:
        return f"it has to log in by key without a question: ssh-copy-id {where}"
    return f"see that the board is on and that `ssh {where} true` works without a question"
