"""The agent by itself: its frames, its answers, its bounds, and that it stands alone."""

from __future__ import annotations

import ast
import io
import json
import math
import os
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnv3search.families import published
from mnv3search.latency.keys import this_machine
from mnv3search.latency.remote import agent
from mnv3search.latency.remote.agent import MARKER, Agent, pack, unpack
from mnv3search.latency.runtimes.base import graph_of, input_image
from mnv3search.latency.runtimes.registry import load_runtime

SOURCE = Path(agent.__file__)
SUBJECT = published("mobilenet_v3_small", resolution=32)


def talk(
    *requests: bytes, source: str | None = None
) -> tuple[bytes, list[dict[str, Any]], subprocess.CompletedProcess[bytes]]:
    """What the agent prints before its first frame, its answers, and how it ended."""
    words = [sys.executable, str(SOURCE)] if source is None else [sys.executable, "-c", source]
    done = subprocess.run(words, input=b"".join(requests), capture_output=True, check=False, timeout=60)
    before, _, frames = done.stdout.partition(MARKER)
    stream, answers = io.BytesIO(frames), []
    while (frame := unpack(stream.read)) is not None:
        answers.append(frame[0])
    return before, answers, done


def prepare(number: int = 1, **given: Any) -> tuple[dict[str, Any], bytes]:
    graph, image = graph_of(SUBJECT), input_image(SUBJECT)
    request = {"ask": "prepare", "id": number, "graph": len(graph), "shape": list(image.shape), "threads": 1}
    return {**request, **given}, graph + image.tobytes()


def test_frames_by_hand() -> None:
    assert pack({"a": 1}, b"xyz") == struct.pack(">I", 22) + b'{"a": 1, "payload": 3}' + b"xyz"
    assert unpack(io.BytesIO(pack({"a": 1}, b"xyz")).read) == ({"a": 1}, b"xyz")
    assert unpack(io.BytesIO(b"").read) is None
    for length in (2, 10, 27):
        assert unpack(io.BytesIO(pack({"a": 1}, b"xyz")[:length]).read) is None


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"\xff\xff\xff\xff", "a header of 4294967295 bytes"),
        (struct.pack(">I", 0), "a header of 0 bytes"),
        (struct.pack(">I", 4) + b"abcd", "not JSON"),
        (struct.pack(">I", 4) + b"\xff\xfe\x00\x00", "not JSON"),
        (struct.pack(">I", 2) + b"[]", "payload's size"),
        (struct.pack(">I", 2) + b"{}", "payload's size"),
        *(
            (struct.pack(">I", len(text)) + text, "payload's size")
            for text in (b'{"payload": -1}', b'{"payload": 1e3}', b'{"payload": true}', b'{"payload": 268435457}')
        ),
        (struct.pack(">I", 60_000) + b"[" * 60_000, "not JSON"),
    ],
)
def test_what_is_no_frame_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        unpack(io.BytesIO(data).read)


def test_the_agent_stands_alone_and_keeps_to_python_3_8() -> None:
    tree = ast.parse(SOURCE.read_text(encoding="utf-8"), feature_version=(3, 8))
    at_top = {
        name.split(".")[0]
        for node in tree.body
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in ([alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""])
    }
    assert at_top <= sys.stdlib_module_names
    in_all = {a.name for node in ast.walk(tree) if isinstance(node, ast.Import) for a in node.names}
    assert in_all - sys.stdlib_module_names == {"numpy", "onnxruntime"}


def test_the_machine_is_described_as_it_describes_itself() -> None:
    pytest.importorskip("onnxruntime")
    found, payload = Agent().answer({"ask": "hello"}, b"")
    here = this_machine()
    assert (found["cpu"], found["cores"], found["arch"]) == (here.cpu, here.cores, here.arch)
    assert found["usable"] == len(os.sched_getaffinity(0))
    assert found["onnxruntime"] == load_runtime("onnxruntime").version
    assert (found["protocol"], found["missing"], payload) == (agent.PROTOCOL, [], b"")


def test_the_board_is_found_by_other_names_as_well(tmp_path: Path) -> None:
    cpuinfo = tmp_path / "cpuinfo"
    cpuinfo.write_text("processor\t: 0\nBogoMIPS\t: 108.00\n\nModel\t\t: Raspberry Pi 4 Model B Rev 1.4\n")
    assert agent.cpu_model(str(cpuinfo)) == this_machine(cpuinfo).cpu == "Raspberry Pi 4 Model B Rev 1.4"
    assert agent.cpu_model(str(tmp_path / "none")) == this_machine(tmp_path / "none").cpu


def test_sessions_are_prepared_timed_read_and_dropped() -> None:
    pytest.importorskip("onnxruntime")
    one = Agent()
    assert one.answer(*prepare(1)) == one.answer(*prepare(2)) == ({}, b"")
    seconds = one.answer({"ask": "time", "ids": [2, 1, 2]}, b"")[0]["seconds"]
    assert len(seconds) == 3
    assert all(math.isfinite(second) and 0 < second < 10 for second in seconds)
    header, payload = one.answer({"ask": "output", "id": 1}, b"")
    here = load_runtime("onnxruntime").prepare(SUBJECT).output()
    np.testing.assert_array_equal(np.frombuffer(payload, dtype="<f4").reshape(header["shape"]), here)
    assert "KeyError" in one.answer({"ask": "time", "ids": [1], "drop": [1]}, b"")[0]["error"]
    assert len(one.answer({"ask": "time", "ids": [2]}, b"")[0]["seconds"]) == 1


@pytest.mark.parametrize(
    ("request_", "said"),
    [
        ({"ask": "shell", "command": "true"}, "unknown request 'shell'"),
        ({"ask": ["hello"]}, "Error"),
        ({}, "unknown request 'None'"),
        ({"ask": "time"}, "KeyError"),
        ({"ask": "time", "ids": [7]}, "KeyError"),
        ({"ask": "time", "ids": [7] * 5_000}, "more than 4096 calls"),
        ({"ask": "output", "id": 7}, "KeyError"),
        ({"ask": "prepare", "id": 1, "graph": 4, "shape": [1], "threads": 1}, "INVALID_PROTOBUF|InvalidProtobuf"),
        ({"ask": "hello", "drop": 5}, "TypeError"),
    ],
)
def test_requests_that_fail_are_answered(request_: dict[str, Any], said: str) -> None:
    pytest.importorskip("onnxruntime")
    error = Agent().answer(request_, b"no graph")[0]["error"]
    assert any(one in error for one in said.split("|"))
    assert len(error) <= agent.MAX_ERROR


def test_sessions_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setattr(agent, "MAX_SESSIONS", 1)
    one = Agent()
    assert one.answer(*prepare(1))[0] == {}
    assert "more than 1 sessions" in one.answer(*prepare(2))[0]["error"]
    assert one.answer(*prepare(2, drop=[1]))[0] == {}


def test_it_ends_with_bye_and_with_its_input() -> None:
    hello = pack({"ask": "hello"})
    for requests, count in (((hello, pack({"ask": "bye"}), hello), 1), ((hello, hello), 2), ((hello, hello[:7]), 1)):
        before, answers, done = talk(*requests)
        assert (before, len(answers), done.returncode, done.stderr) == (b"", count, 0, b"")


def test_what_is_no_request_ends_it_with_a_line() -> None:
    _, answers, done = talk(pack({"ask": "hello"}), b"GET / HTTP/1.1\r\n\r\n")
    assert len(answers) == 1
    assert done.returncode == 1
    assert done.stderr.decode().strip() == "mnv3search agent: a header of 1195725856 bytes; at most 1048576 are allowed"


def test_a_library_that_prints_does_not_get_into_the_frames() -> None:
    chatty = (
        "import os, runpy, platform\nfound = platform.python_version\n"
        "def loud():\n    print('print'); os.write(1, b'write'); os.system('echo child'); return found()\n"
        f"platform.python_version = loud\nrunpy.run_path({json.dumps(str(SOURCE))}, run_name='__main__')"
    )
    before, answers, done = talk(pack({"ask": "hello"}), source=chatty)
    assert (before, len(answers), done.returncode) == (b"", 1, 0)
    assert all(word in done.stderr for word in (b"print", b"write", b"child"))
