"""Where a board is and which Python runs there, checked before either becomes a word of the ssh command."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mnv3search.errors import DeviceError

MAX_LENGTH = 255
NAME = r"[A-Za-z0-9_][A-Za-z0-9_.-]*"
IPV6 = r"\[[0-9A-Fa-f:.]+(?:%[A-Za-z0-9_.-]+)?\]"
ADDRESS = re.compile(rf"(?:({NAME})@)?({NAME}|{IPV6})(?::([0-9]{{1,5}}))?")
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
    """The address that ``[user@]host[:port]`` names, IPv6 in brackets; raises DeviceError where it is no such text."""
    found = ADDRESS.fullmatch(text) if len(text) <= MAX_LENGTH else None
    port = int(found[3]) if found and found[3] else None
    if found is None or (port is not None and not 1 <= port <= 65_535):
        raise DeviceError(
            f"{text[:80]!r} is no address of a board; write user@host or user@host:port, of letters, digits, '.', '_' "
            f"and '-' (not first), with a port from 1 to 65535 and an IPv6 address in brackets"
        )
    return Address(found[2].strip("[]"), found[1], port)


def check_python(python: str) -> str:
    """The name or path of Python on a board, as given; raises DeviceError where a shell could take it for more."""
    if len(python) > MAX_LENGTH or not PYTHON.fullmatch(python):
        raise DeviceError(
            f"{python[:80]!r} cannot name Python on the board; "
            f"write a name or path of letters, digits and . _ / + -, as in python=/opt/venv/bin/python3"
        )
    return python
