"""What went wrong on the way to a board, told in one line with what to do about it."""

from __future__ import annotations

from mnv3search.latency.remote.address import Address

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
