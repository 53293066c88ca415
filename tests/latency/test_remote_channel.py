"""The line to a board, with a program in the place of ssh that runs the board's command here: boards that misbehave."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from trained_fakes import fake_trained

from mnv3search.errors import DeviceError, MeasurementError
from mnv3search.export import export_onnx
from mnv3search.families import published
from mnv3search.graph.model_file import read_model
from mnv3search.latency.remote import agent
from mnv3search.latency.remote.channel import Patience
from mnv3search.latency.remote.remote_runtime import RemoteRuntime, open_remote
from mnv3search.latency.runtimes.base import Elsewhere, LoadsGraphs, Runtime, Session, TakesTurns, machine_of
from mnv3search.latency.runtimes.registry import load_runtime

SUBJECT = published("mobilenet_v3_small", resolution=32)
SHORT = Patience(start=20, reply=20)

# a board of one's own making: BODY is run with these names
BOARD = """\
#!{python}
import sys, time, os
sys.path.insert(0, {folder!r})
import agent
from agent import MARKER, pack, unpack
sink, source = os.fdopen(os.dup(1), "wb", 0), sys.stdin.buffer
MACHINE = {{"cpu": "C", "cores": 4, "usable": 4, "arch": "A", "load": 0.5}}
HELLO = dict(MACHINE, protocol=1, missing=[], onnxruntime="1")
source.read(int(source.read(10)))
def reply(header, payload=b""):
    global asked
    asked = unpack(source.read)
    sink.write(pack(header, payload))
"""

Open = Callable[..., RemoteRuntime]


@pytest.fixture
def opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Open:
    """Opens a board that runs this Python's program: the agent, or ``body`` in its place."""
    (tmp_path / "bin").mkdir()
    ssh = tmp_path / "bin" / "ssh"
    ssh.write_text('#!/bin/sh\nfor last; do :; done\nexec /bin/sh -c "$last"\n')
    ssh.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}{os.pathsep}{os.environ['PATH']}")

    def open_board(body: str | None = None, *, before: str = "", **given: Any) -> RemoteRuntime:
        program = tmp_path / "board-python"
        if body is None:
            program.write_text(f'#!/bin/sh\n{before}\nexec {sys.executable} "$@"\n')
        else:
            folder = str(Path(agent.__file__).parent)
            program.write_text(BOARD.format(python=sys.executable, folder=folder) + body)
        program.chmod(0o755)
        return open_remote("pi@board", **{"python": str(program), "patience": SHORT, **given})

    return open_board


def answering(*replies: str) -> str:
    """A board that greets, prepares, and then gives these replies."""
    return "\n".join(["sink.write(MARKER)", "reply(HELLO)", "reply({})", *replies, "source.read()"])


def test_it_is_a_runtime_elsewhere_and_computes_what_it_computes_here(opened: Open) -> None:
    runtime, here = opened(), load_runtime("onnxruntime")
    assert isinstance(runtime, Runtime)
    assert isinstance(runtime, TakesTurns)
    assert isinstance(runtime, Elsewhere)
    assert (runtime.name, runtime.version, runtime.threads, runtime.precision) == (
        "onnxruntime",
        here.version,
        1,
        "fp32",
    )
    assert machine_of(runtime) == machine_of(here)
    session = runtime.prepare(SUBJECT)
    assert isinstance(session, Session)
    np.testing.assert_array_equal(session.output(), here.prepare(SUBJECT).output())
    assert 0 < session.time_once() < 10
    other = runtime.prepare(SUBJECT)
    times = runtime.time_in_turn([session, other, session])
    assert len(times) == 3
    assert all(0 < seconds < 10 for seconds in times)
    assert runtime.time_in_turn([]) == []
    runtime.close()


def test_int8_graphs_are_made_here_and_computed_there(opened: Open) -> None:
    runtime, here = opened(precision="int8"), load_runtime("onnxruntime", precision="int8")
    assert runtime.precision == "int8"
    np.testing.assert_array_equal(runtime.prepare(SUBJECT).output(), here.prepare(SUBJECT).output())


@pytest.mark.parametrize("pixels", [False, True])
def test_model_files_are_computed_there_as_they_are_here(opened: Open, tmp_path: Path, pixels: bool) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(export_onnx(fake_trained(), batch="dynamic", with_preprocessing=pixels))
    model, here = read_model(path), load_runtime("onnxruntime")
    assert isinstance(here, LoadsGraphs)
    there = opened().load(model.content, model.image(), str(model))
    np.testing.assert_array_equal(there.output(), here.load(model.content, model.image(), str(model)).output())


def test_several_threads_up_to_those_of_the_board(opened: Open) -> None:
    with pytest.raises(DeviceError, match=r"threads is 1024, but pi@board has .* cores to give"):
        opened(threads=1024)
    for threads in (0, True, 1.5, 1025):
        with pytest.raises(DeviceError, match="whole number from 1 to 1024"):
            opened(threads=threads)
    with pytest.raises(DeviceError, match="must be fp32 or int8"):
        opened(precision="fp16")


def test_text_before_the_agent_is_passed_over(opened: Open) -> None:
    runtime = opened(before="echo Welcome to the board; head -c 60000 /dev/zero")
    assert runtime.prepare(SUBJECT).time_once() > 0


def test_sessions_that_nobody_holds_are_freed_on_the_board(opened: Open) -> None:
    runtime = opened()
    held = runtime.prepare(SUBJECT)
    for _ in range(3):
        number = runtime.prepare(SUBJECT).number  # type: ignore[attr-defined]
    gc.collect()
    assert held.time_once() > 0
    with pytest.raises(MeasurementError, match="pi@board could not do what was asked: KeyError"):
        runtime.channel.ask({"ask": "time", "ids": [number]})
    assert held.time_once() > 0


def test_a_graph_that_the_board_refuses_is_said_and_ends_nothing(opened: Open) -> None:
    replies = 'reply({"error": "Fail: \\x1b[2Jno such op\\nat all"})\nreply({})\nreply({"seconds": [0.25]})'
    runtime = opened(answering(replies))
    runtime.prepare(SUBJECT)
    with pytest.raises(MeasurementError, match=r"onnxruntime 1 refuses the graph of .*: Fail: \[2Jno such op at all$"):
        runtime.prepare(SUBJECT)
    assert runtime.prepare(SUBJECT).time_once() == 0.25


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        ('{"seconds": [0.1, 0.1]}', "no list of 1 times"),
        ('{"seconds": []}', "no list of 1 times"),
        ('{"seconds": 0.1}', "no list of 1 times"),
        ("{}", "no list of 1 times"),
        ('{"seconds": [float("nan")]}', "nan s for one call"),
        ('{"seconds": [float("inf")]}', "inf s for one call"),
        ('{"seconds": [-0.1]}', "-0.1 s for one call"),
        ('{"seconds": [0]}', "0 s for one call"),
        ('{"seconds": [1e-300]}', "1e-300 s for one call, where 1e-07 to 100000 are possible"),
        ('{"seconds": [1e300]}', "s for one call"),
        ('{"seconds": [True]}', "True s for one call"),
        ('{"seconds": ["0.1"]}', "'0.1' s for one call"),
        ('{"seconds": [10 ** 400]}', "s for one call"),
    ],
)
def test_times_that_are_none_are_refused(opened: Open, reply: str, said: str) -> None:
    session = opened(answering(f"reply({reply})")).prepare(SUBJECT)
    with pytest.raises(MeasurementError, match=f"pi@board stopped answering .*{said}.*kept: run it again to go on"):
        session.time_once()
    with pytest.raises(MeasurementError, match="the connection is closed"):
        session.time_once()


@pytest.mark.parametrize(
    "reply",
    [
        '{"shape": [2, 2]}, b"abc"',
        '{"shape": [-1, -4]}, b"abcd"',
        '{"shape": "x"}',
        '{}, b"abcd"',
        '{"shape": [1.0]}, b"abcd"',
    ],
)
def test_arrays_that_are_none_are_refused(opened: Open, reply: str) -> None:
    session = opened(answering(f"reply({reply})")).prepare(SUBJECT)
    with pytest.raises(MeasurementError, match="bytes of an array of shape"):
        session.output()


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        ("sink.write(b'HTTP/1.1 200')", "it sent a header of 1213486160 bytes"),
        ("sink.write(b'\\0\\0\\0\\x04abcd')", "it sent a header that is not JSON"),
        ("sink.write(b'\\0\\0\\0\\x16{\"payload\": 268435457}')", "payload's size from 0 to 268435456"),
        ("sys.exit('out of memory\\x1b')", r"\(out of memory, ssh ended with 1\)"),
        ("sink.write(pack({'seconds': [1.0]})[:-4]); sys.exit()", r"\(the connection ended\)"),
        ("os.kill(os.getpid(), 9)", r"stopped answering \("),
    ],
)
def test_replies_that_are_none_are_refused(opened: Open, sent: str, said: str) -> None:
    session = opened(answering(sent)).prepare(SUBJECT)
    with pytest.raises(MeasurementError, match=said):
        session.time_once()


def test_a_reply_that_comes_too_late(opened: Open) -> None:
    session = opened(answering("time.sleep(60)"), patience=Patience(start=20, reply=2, call=0.1)).prepare(SUBJECT)
    with pytest.raises(MeasurementError, match=r"pi@board stopped answering \(no reply in time"):
        session.time_once()


def test_a_board_that_does_not_read(opened: Open) -> None:
    body = "sink.write(MARKER)\nreply(HELLO)\ntime.sleep(60)"
    runtime = opened(body, patience=Patience(start=20, reply=2))
    with pytest.raises(MeasurementError, match="no reply in time"):
        runtime.prepare(published("mobilenet_v3_small"))  # more than a pipe holds


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("os.write(1, b'x' * 100_000); time.sleep(60)", "pi@board prints more than 64 KB before it runs a command"),
        ("print('hello'); sys.exit('no space')", "does not run the agent: no space; does `ssh pi@board .* -V` work"),
        ("sys.exit(3)", r"does not run the agent \(exit code 3\)"),
        ("sys.exit(127)", "install Python 3.8 or newer with numpy and onnxruntime there"),
        ("sink.write(MARKER); reply(dict(HELLO, protocol=2))", "speaks protocol 2, not 1"),
        ("sink.write(MARKER); reply({})", "speaks protocol None, not 1"),
        ("sink.write(MARKER); reply(dict(HELLO, missing=['onnxruntime']))", "lacks onnxruntime; run there: .* -m pip"),
        ("sink.write(MARKER); reply(dict(HELLO, cores='4'))", "no description of its machine"),
        ("sink.write(MARKER); reply(dict(HELLO, cpu=''))", "no description of its machine"),
        ("sink.write(MARKER); reply({'error': 'AttributeError: numpy'})", "not do what was asked: AttributeError"),
    ],
)  # fmt: skip
def test_boards_that_cannot_serve(opened: Open, body: str, said: str) -> None:
    with pytest.raises(DeviceError, match=said) as caught:
        opened(body)
    assert "\n" not in str(caught.value)


def test_a_board_that_never_starts(opened: Open) -> None:
    with pytest.raises(DeviceError, match="did not start the agent in time; does `ssh pi@board true` return"):
        opened("time.sleep(60)", patience=Patience(start=1))


def test_no_ssh_here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(
        DeviceError, match=r"the program ssh, which cannot be run here .*apt-get install openssh-client"
    ):
        open_remote("pi@board")


def test_what_a_board_says_of_itself_is_made_printable(opened: Open) -> None:
    runtime = opened("sink.write(MARKER); reply(dict(HELLO, cpu='A\\x1b]0;B\\n', load='x')); source.read()")
    assert runtime.machine.cpu == "A ]0;B"
    assert runtime.load_average is None


def test_an_interrupt_leaves_no_reply_to_be_taken_for_another(opened: Open) -> None:
    session = opened(answering("time.sleep(60)")).prepare(SUBJECT)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    former = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 1.0)
        with pytest.raises(KeyboardInterrupt):
            session.time_once()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, former)
    with pytest.raises(MeasurementError, match="the connection is closed"):
        session.time_once()


def test_after_a_loss_the_same_runtime_connects_anew(opened: Open) -> None:
    runtime = opened()
    former = runtime.prepare(SUBJECT)
    runtime.close()
    with pytest.raises(MeasurementError, match="the connection is closed"):
        former.time_once()
    session = runtime.prepare(SUBJECT)
    assert session.time_once() > 0
    with pytest.raises(MeasurementError, match="before the connection was lost; prepare it again"):
        runtime.time_in_turn([session, former])
    with pytest.raises(MeasurementError, match="prepared elsewhere than on pi@board"):
        runtime.time_in_turn([load_runtime("onnxruntime").prepare(SUBJECT)])


def test_another_board_at_the_same_address_is_not_mixed_with_the_first(opened: Open) -> None:
    runtime = opened("sink.write(MARKER); reply(HELLO); source.read()")
    runtime.close()
    assert shutil.which("ssh") is not None
    opened("sink.write(MARKER); reply(dict(HELLO, cpu='D')); source.read()").close()  # the program is another now
    with pytest.raises(MeasurementError, match="is now D, 4 cores, A with onnxruntime 1, and was C, 4 cores, A"):
        runtime.prepare(SUBJECT)
