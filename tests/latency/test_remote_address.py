"""Addresses of boards: what is read, what is refused, and the command that reaches them."""

from __future__ import annotations

import shlex

import pytest

from mnv3search.errors import DeviceError
from mnv3search.latency.remote.address import Address, check_python, parse_address
from mnv3search.latency.remote.channel import BOOTSTRAP, last_line, printable


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("board", Address("board")),
        ("pi@board", Address("board", "pi")),
        ("pi@board.local:2222", Address("board.local", "pi", 2222)),
        ("192.168.0.7:22", Address("192.168.0.7", None, 22)),
        ("pi@[fe80::1%eth0]:2222", Address("fe80::1%eth0", "pi", 2222)),
        ("[::1]", Address("::1")),
        ("my_user-1@jetson_nano", Address("jetson_nano", "my_user-1")),
    ],
)
def test_addresses_are_read_and_written_back(text: str, address: Address) -> None:
    assert parse_address(text) == address
    assert str(address) == text


@pytest.mark.parametrize(
    "text",
    [
        "", "@board", "pi@", "-oProxyCommand=touch", "pi@-board", "-l@board", "pi@board:0", "pi@board:65536",
        "pi@board:", "pi@board:22:22", "pi@board;reboot", "pi@$(reboot)", "pi@board /", "pi@bo`ard", "a@b@c", "fe80::1",
        "pi@[board]", "pi@[::1", "pi@board\n", "pi'@board", "b" * 300,
    ],
)  # fmt: skip
def test_what_could_be_more_than_an_address_is_refused(text: str) -> None:
    with pytest.raises(DeviceError, match="write user@host or user@host:port") as caught:
        parse_address(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("python", ["python3", "/opt/venv/bin/python3.11", "./c++/python", "python3-dbg"])
def test_interpreters_are_named(python: str) -> None:
    assert check_python(python) == python


@pytest.mark.parametrize(
    "python", ["", "-c", "python3;reboot", "a b", "$HOME/python", "~/python", "p'y", "p\n", "x" * 300]
)
def test_what_could_be_more_than_an_interpreter_is_refused(python: str) -> None:
    with pytest.raises(DeviceError, match="cannot name Python on the board"):
        check_python(python)


def test_the_command_asks_nothing_and_ends_its_options_before_the_host() -> None:
    words = parse_address("pi@[::1]:2222").command("true", ("-F", "config"))
    assert words[:3] == ["ssh", "-F", "config"]
    assert words[-7:] == ["-l", "pi", "-p", "2222", "--", "::1", "true"]
    for option in ("BatchMode=yes", "ConnectTimeout=10", "ServerAliveInterval=5", "ClearAllForwardings=yes"):
        assert words[words.index(option) - 1] == "-o"
    assert parse_address("board").command("true")[-3:] == ["--", "board", "true"]


def test_the_first_program_is_one_word_in_any_shell() -> None:
    assert not set(BOOTSTRAP) & set("'!\\\n")
    assert shlex.split(f"python3 -c '{BOOTSTRAP}'") == ["python3", "-c", BOOTSTRAP]


def test_messages_of_a_board_become_one_line_that_no_terminal_obeys() -> None:
    assert printable("a\x1b[31mred\x07\r\nb\x9b") == "a [31mred b"
    assert len(printable("x" * 10_000)) == 300
    assert last_line("Warning: added\r\nkex: refused.\n\nConnection closed by 1.2.3.4\n") == "kex: refused"
    assert last_line("Connection closed by 1.2.3.4 port 22\r\n") == "Connection closed by 1.2.3.4 port 22"
    assert last_line("") == ""
