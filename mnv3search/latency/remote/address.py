"""Where a board is: the text that a user writes, checked, and the ssh command that reaches it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from mnv3search.errors import DeviceError

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
