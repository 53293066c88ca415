"""The text that names a measured device: ``host``, ``host:openvino,int8,threads=2``, ``ssh://user@board:2222``."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal, get_args

from mnv3search.errors import DeviceError, UnknownNameError
from mnv3search.latency.runtimes.base import MAX_THREADS, Precision
from mnv3search.latency.runtimes.registry import RUNTIMES, runtime_names

HOST, SSH, STALE = "host", "ssh://", "stale"
DEFAULT_RUNTIME = "onnxruntime"
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
MAX_TEXT = 300
FORM = "host[:RUNTIME][,int8][,threads=N][,stale] or ssh://[USER@]HOST[:PORT][,int8][,threads=N][,python=PATH][,stale]"
_Key = Literal["runtime", "precision", "threads", "python", "stale"]


@dataclass(frozen=True, slots=True)
class DeviceSpec:
    """What is timed where: a runtime with so many threads and a precision, on this machine or another.

    ``str()`` gives the canonical text, which :meth:`parse` reads back to an equal value and in which what is usual
    (onnxruntime, fp32, one thread) is left out.

    Attributes:
        runtime: one of ``latency.runtimes.runtime_names()``; another machine's is always ``onnxruntime``.
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
        if not _is_runtime(self.runtime):
            raise UnknownNameError("runtime", self.runtime, runtime_names())
        if self.precision not in PRECISIONS:
            raise UnknownNameError("precision", self.precision, PRECISIONS)
        if isinstance(self.threads, bool) or not isinstance(self.threads, int) or not 1 <= self.threads <= MAX_THREADS:
            raise DeviceError(f"threads is {self.threads!r:.80}; it must be a whole number from 1 to {MAX_THREADS}")
        _check_elsewhere(self)

    @property
    def place(self) -> str:
        """``[user@]host[:port]`` of another machine; empty for this one."""
        return (self.address or "").removeprefix(SSH)

    @staticmethod
    def names(text: str) -> bool:
        """Whether ``text`` speaks of a measured device at all, well formed or not."""
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
        if text.startswith(SSH):
            address, *words = text.split(",")
            return cls(address=address, **_fields(words, text))  # type: ignore[arg-type]
        rest = text.removeprefix(HOST)
        return cls(**_fields(rest[1:].split(",") if rest else [], text))  # type: ignore[arg-type]

    def __str__(self) -> str:
        """The canonical text."""
        words = [f"threads={self.threads}"] if self.threads != 1 else []
        if self.precision != "fp32":
            words.insert(0, self.precision)
        if self.python is not None:
            words.append(f"python={self.python}")
        if self.stale:
            words.append(STALE)
        if self.address is not None:
            return ",".join([self.address, *words])
        named = [self.runtime] if words or self.runtime != DEFAULT_RUNTIME else []
        return ":".join([HOST, ",".join([*named, *words])]) if named else HOST

    def with_options(
        self,
        runtime: str | None = None,
        threads: int | None = None,
        precision: str | None = None,
        *,
        stale: bool = False,
    ) -> DeviceSpec:
        """The same device with what is given here; None, or ``stale`` unset, leaves a field as it is.

        Raises:
            UnknownNameError: no such runtime or precision.
            DeviceError: an option contradicts what the text says, or cannot be.
        """
        given = {"runtime": runtime, "threads": threads, "precision": precision}
        changes = {key: value for key, value in given.items() if value is not None}
        usual = DeviceSpec()
        for key, value in changes.items():
            here = getattr(self, key)
            if here not in (getattr(usual, key), value):
                raise DeviceError(f"--{key} {value} contradicts the device {self}; leave one of them away")
        return replace(self, **changes, stale=self.stale or stale)  # type: ignore[arg-type]


def _fields(words: list[str], text: str) -> dict[_Key, object]:
    found: dict[_Key, object] = {}
    for word in words:
        key, value = _field(word, text)
        if key in found:
            raise DeviceError(f"device {text!r} gives its {key} twice; give it once")
        found[key] = value
    return found


def _field(word: str, text: str) -> tuple[_Key, object]:
    name, equals, value = word.partition("=")
    if equals and name == "threads":
        return "threads", int(value) if re.fullmatch(r"[0-9]{1,6}", value) else value
    if equals and name == "python":
        return "python", value
    if word in PRECISIONS:
        return "precision", word
    if word == STALE:
        return "stale", True
    if _is_runtime(word):
        return "runtime", word
    kind = "device option" if equals else "runtime or precision"
    options = ["threads=N", *(["python=PATH"] if text.startswith(SSH) else [])]
    known = options if equals else [*runtime_names(), *PRECISIONS, STALE]
    raise UnknownNameError(kind, word, known, f"It stands in the device {text!r}; the form is {FORM}.")


def _is_runtime(word: str) -> bool:
    return word in RUNTIMES or word in runtime_names()  # what is installed is looked through last, as that takes long


def _check_elsewhere(spec: DeviceSpec) -> None:
    """What may be said of another machine, and of no other."""
    if spec.address is None:
        if spec.python is not None:
            raise DeviceError(f"python={spec.python} is for another machine; host uses this Python: leave it away")
        return
    from mnv3search.latency.remote.channel import check_python, parse_address  # SSH is loaded only where it is used

    parse_address(spec.place)
    if spec.python is not None:
        check_python(spec.python)
    if spec.runtime != DEFAULT_RUNTIME:
        raise DeviceError(
            f"runtime is {spec.runtime!r} on {spec.address}; another machine is timed in {DEFAULT_RUNTIME} only: leave "
            f"the runtime away"
        )
