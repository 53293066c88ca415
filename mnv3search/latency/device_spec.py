"""The text that names a measured device: ``host``, ``host:openvino,int8,threads=2``, ``ssh://user@board:2222``."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any

from mnv3search.errors import DeviceError, UnknownNameError
from mnv3search.latency.remote.address import check_python, parse_address
from mnv3search.latency.runtimes.base import Precision
from mnv3search.latency.runtimes.registry import PRECISIONS, check_options, check_runtime, is_runtime, runtime_names

HOST, SSH, STALE = "host", "ssh://", "stale"
DEFAULT_RUNTIME = "onnxruntime"
MAX_TEXT = 300
FORM = "host[:RUNTIME][,int8][,threads=N][,stale] or ssh://[USER@]HOST[:PORT][,int8][,threads=N][,python=PATH][,stale]"


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """A runtime with so many threads and a precision, on this machine or another.

    ``str()`` gives the canonical text, which :meth:`parse` reads back to an equal value and in which what is usual
    (onnxruntime, fp32, one thread) is left out.

    Attributes:
        runtime: one of ``runtime_names()``; another machine's is always ``onnxruntime``.
        precision: of weights and activations.
        threads: of one call.
        address: ``ssh://[user@]host[:port]``; None for this machine.
        python: the other machine's Python; its own default where None.
        stale: where the runtime's present version has no table, the newest of another version may answer.

    Raises:
        UnknownNameError: no such runtime or precision.
        DeviceError: threads that are no whole number from 1 to 1,024; an address or path that cannot be one.
    """

    runtime: str = DEFAULT_RUNTIME
    precision: Precision = "fp32"
    threads: int = 1
    address: str | None = None
    python: str | None = None
    stale: bool = False

    def __post_init__(self) -> None:
        check_runtime(self.runtime)
        if self.precision not in PRECISIONS:
            raise UnknownNameError("precision", self.precision, PRECISIONS)
        check_options(self.threads, self.precision)
        if self.address is None:
            if self.python is not None:
                raise DeviceError(f"python={self.python} is for another machine; host uses this Python: leave it away")
            return
        parse_address(self.board)
        if self.python is not None:
            check_python(self.python)
        if self.runtime != DEFAULT_RUNTIME:
            raise DeviceError(
                f"runtime is {self.runtime!r} on {self.address}; another machine is timed in {DEFAULT_RUNTIME} only: "
                "leave the runtime away"
            )

    @property
    def board(self) -> str:
        """``[user@]host[:port]`` of another machine; empty for this one."""
        return (self.address or "").removeprefix(SSH)

    @staticmethod
    def names(text: str) -> bool:
        """Whether ``text`` names a measured device, well formed or not."""
        return text == HOST or text.startswith((f"{HOST}:", f"{HOST},", SSH))

    @classmethod
    def parse(cls, text: str) -> DeviceSpec:
        """The spec of a text such as ``host:torch,threads=2``.

        After the device, in any order: a runtime, ``fp32`` or ``int8``, ``threads=N``, ``stale``, and ``python=PATH``
        for another machine.

        Raises:
            UnknownNameError: no such runtime or precision.
            DeviceError: the text is none of a measured device, says one thing twice, or names what cannot be.
        """
        if len(text) > MAX_TEXT or not cls.names(text):
            raise DeviceError(f"{text!r:.80} names no device that can be measured; the form is {FORM}")
        found: dict[str, Any] = {}
        if text.startswith(SSH):
            found["address"], *words = text.split(",")
        else:
            words = text.removeprefix(HOST)[1:].split(",") if text != HOST else []
        for word in words:
            key, value = _field(word, text)
            if key in found:
                raise DeviceError(f"device {text!r} gives its {key} twice; give it once")
            found[key] = value
        return cls(**found)

    def __str__(self) -> str:
        """The canonical text."""
        words: list[str] = [self.precision] if self.precision != "fp32" else []
        if self.threads != 1:
            words.append(f"threads={self.threads}")
        if self.python is not None:
            words.append(f"python={self.python}")
        if self.stale:
            words.append(STALE)
        if self.address is not None:
            return ",".join([self.address, *words])
        named = [self.runtime] if words or self.runtime != DEFAULT_RUNTIME else []
        return ":".join([HOST, ",".join([*named, *words])]) if named else HOST

    def with_options(
        self, runtime: str | None = None, threads: int | None = None, precision: str | None = None, stale: bool = False
    ) -> DeviceSpec:
        """The same device with what is given here; None, or ``stale`` unset, leaves a field as it is."""
        given = {"runtime": runtime, "threads": threads, "precision": precision}
        changes: dict[str, Any] = {key: value for key, value in given.items() if value is not None}
        usual = DeviceSpec()
        for key, value in changes.items():
            here = getattr(self, key)
            if here not in (getattr(usual, key), value):
                raise DeviceError(f"--{key} {value} contradicts the device {self}; leave one of them away")
        return replace(self, **changes, stale=self.stale or stale)


def _field(word: str, text: str) -> tuple[str, object]:
    name, equals, value = word.partition("=")
    if equals and name == "threads":
        return "threads", int(value) if re.fullmatch(r"[0-9]{1,6}", value) else value
    if equals and name == "python":
        return "python", value
    if word in PRECISIONS:
        return "precision", word
    if word == STALE:
        return "stale", True
    if is_runtime(word):
        return "runtime", word
    kind = "device option" if equals else "runtime or precision"
    options = ["threads=N", *(["python=PATH"] if text.startswith(SSH) else [])]
    known = options if equals else [*runtime_names(), *PRECISIONS, STALE]
    raise UnknownNameError(kind, word, known, f"It stands in the device {text!r}; the form is {FORM}.")
