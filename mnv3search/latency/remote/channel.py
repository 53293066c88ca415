"""The line to a board: ssh as a child process, frames over its pipes, every wait and every size bounded.

The user's address is checked before it becomes a word of the ssh command; what goes wrong on the way is said in one
line with what to do about it.
"""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import subprocess
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import IO, Any

from mnv3search.errors import DeviceError, MeasurementError
from mnv3search.latency.remote.agent import MARKER, MAX_HEADER, MAX_PAYLOAD, pack, unpack

MAX_LENGTH = 255
USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+(%[A-Za-z0-9_.-]+)?\]")
PYTHON = re.compile(r"[A-Za-z0-9_./+][A-Za-z0-9_./+-]*")
# no question is ever asked; a board that vanishes is noticed in 15 s; nothing of this machine is passed on to it
OPTIONS = (
    "-a", "-x", "-T",
    "-o", "BatchMode=yes",
    "-o", "ConnectTimeout=10",
    "-o", "ServerAliveInterval=5",
    "-o", "ServerAliveCountMax=3",
    "-o", "ClearAllForwardings=yes",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Address:
    """A board's host (a name, an address, or a ``Host`` of the user's ssh configuration), and user and port if given.

    An IPv6 ``host`` has no brackets.
    """

    host: str
    user: str | None = None
    port: int | None = None

    def __str__(self) -> str:
        """As the user writes it: ``pi@board:2222``."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return (f"{self.user}@" if self.user else "") + host + (f":{self.port}" if self.port else "")

    @property
    def destination(self) -> str:
        """What a user would type after ``ssh`` to look for themselves: ``-p 2222 pi@board``."""
        return (f"-p {self.port} " if self.port else "") + (f"{self.user}@" if self.user else "") + self.host

    def command(self, remote: str, options: Sequence[str] = ()) -> list[str]:
        """The words that run ``remote``, a command for the board's shell, over ssh; ``options`` are more for ssh."""
        user = ("-l", self.user) if self.user else ()
        port = ("-p", str(self.port)) if self.port else ()
        return ["ssh", *options, *OPTIONS, *user, *port, "--", self.host, remote]


def parse_address(text: str) -> Address:
    """The address that ``[user@]host[:port]`` names; IPv6 in brackets.

    Raises:
        DeviceError: it is no such text; hosts and users are letters, digits, ``.``, ``_`` and ``-``, not first.
    """
    user, at, place = text.rpartition("@")
    found = re.fullmatch(r"(?P<host>\[[^\]]*\]|[^:\[\]]*)(:(?P<port>[0-9]{1,5}))?", place)
    host, port = (found["host"], int(found["port"] or 0)) if found else ("", 0)
    port_given = found is not None and found["port"] is not None
    if (
        len(text) > MAX_LENGTH
        or not HOST.fullmatch(host)
        or (at and not USER.fullmatch(user))
        or (port_given and not 1 <= port <= 65_535)
    ):
        raise DeviceError(
            f"{text[:80]!r} is no address of a board; write user@host or user@host:port, of letters, digits, '.', '_' "
            f"and '-' (not first), with a port from 1 to 65535 and an IPv6 address in brackets"
        )
    return Address(host.strip("[]"), user or None, port if port_given else None)


def check_python(python: str) -> str:
    """The name or path of Python on a board, as given.

    Raises:
        DeviceError: it has characters that a shell could take for more than a name.
    """
    if len(python) > MAX_LENGTH or not PYTHON.fullmatch(python):
        raise DeviceError(
            f"{python[:80]!r} cannot name Python on the board; "
            f"write a name or path of letters, digits and . _ / + -, as in python=/opt/venv/bin/python3"
        )
    return python


SSH_FAILED, NOT_FOUND, NOT_EXECUTABLE = 255, 127, 126
MAX_QUOTED = 300
AGAIN = "what was measured is kept: run it again to go on"


def printable(text: object) -> str:
    """One line of at most :data:`MAX_QUOTED` characters, without what a terminal would obey."""
    line = "".join(c if c.isprintable() else " " for c in str(text))
    return " ".join(line.split())[:MAX_QUOTED]


def last_line(messages: str) -> str:
    """The last line of ssh's and the board's messages that says something; the closing of a connection says little."""
    lines = [found for line in messages.splitlines() if (found := printable(line))]
    telling = [line for line in lines if not line.startswith(("Connection to ", "Connection closed by"))]
    return (telling or lines or [""])[-1].rstrip(".")


def never_started(address: Address, python: str, why: str, code: int | None, messages: str) -> str:
    """Why the agent did not start on the board, and what to do.

    Args:
        address: the board.
        python: the interpreter that was to run it.
        why: ``ended``, ``time``, ``noise``, or a phrase.
        code: how ssh ended; None where it had not.
        messages: what ssh and the board said on stderr.
    """
    said, where = last_line(messages), address.destination
    quoted = f": {said}" if said else ""
    if why == "time":
        return f"{address} was reached for but did not start the agent in time{quoted}; does `ssh {where} true` return?"
    if why == "noise":
        return f"{address} prints more than 64 KB before it runs a command; make its login files silent for ssh"
    if code == SSH_FAILED:
        return f"ssh does not get to {address}{quoted}; {_ssh_remedy(messages, where)}"
    if code in {NOT_FOUND, NOT_EXECUTABLE}:
        return (
            f"{address} has no {python}{quoted}; install Python 3.8 or newer with numpy and onnxruntime there, "
            f"or name the one that has them: ssh://{address},python=/path/to/python3"
        )
    return f"{address} does not run the agent{quoted or f' (exit code {code})'}; does `ssh {where} {python} -V` work?"


def _ssh_remedy(messages: str, where: str) -> str:
    if "Host key verification failed" in messages or "HOST IDENTIFICATION HAS CHANGED" in messages:
        if "CHANGED" in messages:
            return "its host key is another than before: find out why before you trust it (ssh-keygen -R forgets a key)"
        return f"its host key is unknown here: run `ssh {where}` once and check and accept it"
    if "Permission denied" in messages or "Too many authentication failures" in messages:
        return f"it has to log in by key without a question: ssh-copy-id {where}"
    return f"see that the board is on and that `ssh {where} true` works without a question"


def stopped(address: Address, why: str, code: int | None, messages: str) -> str:
    """Why a board that was measuring gives no more answers; arguments as of :func:`never_started`."""
    said = last_line(messages)
    reason = {"ended": said or "the connection ended", "time": "no reply in time", "closed": "the connection is closed"}
    told = reason.get(why, why)
    return (
        f"{address} stopped answering ({told}{f', ssh ended with {code}' if code and why == 'ended' else ''}); {AGAIN}"
    )


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
