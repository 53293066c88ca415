"""The text of a measured device: what it says, that it reads back, and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mnv3search.errors import DeviceError, UnknownNameError
from mnv3search.latency.device_spec import DeviceSpec


@pytest.mark.parametrize(
    ("text", "fields", "canonical"),
    [
        ("host", {}, "host"),
        ("host:onnxruntime", {}, "host"),
        ("host:torch", {"runtime": "torch"}, "host:torch"),
        ("host:int8", {"precision": "int8"}, "host:onnxruntime,int8"),
        ("host,threads=2", {"threads": 2}, "host:onnxruntime,threads=2"),
        (
            "host:threads=2,int8,openvino",
            {"runtime": "openvino", "precision": "int8", "threads": 2},
            "host:openvino,int8,threads=2",
        ),
        ("host:fp32,threads=1", {}, "host"),
        ("host,stale", {"stale": True}, "host:onnxruntime,stale"),
        ("host:stale,int8", {"stale": True, "precision": "int8"}, "host:onnxruntime,int8,stale"),
        (
            "ssh://board,stale,threads=2",
            {"address": "ssh://board", "stale": True, "threads": 2},
            "ssh://board,threads=2,stale",
        ),
        ("ssh://board", {"address": "ssh://board"}, "ssh://board"),
        ("ssh://pi@board:2222,int8", {"address": "ssh://pi@board:2222", "precision": "int8"}, None),
        ("ssh://[fe80::1%eth0]:22", {"address": "ssh://[fe80::1%eth0]:22"}, None),
        (
            "ssh://pi@10.0.0.7,threads=4,python=/opt/venv/bin/python",
            {"address": "ssh://pi@10.0.0.7", "threads": 4, "python": "/opt/venv/bin/python"},
            None,
        ),
    ],
)
def test_what_a_text_says(text: str, fields: dict[str, Any], canonical: str | None) -> None:
    spec = DeviceSpec.parse(text)
    assert spec == DeviceSpec(**fields)
    assert str(spec) == (text if canonical is None else canonical)


@given(
    st.sampled_from(["onnxruntime", "torch", "openvino"]),
    st.integers(1, 1024),
    st.sampled_from(["fp32", "int8"]),
    st.booleans(),
)
def test_a_spec_reads_back(runtime: str, threads: int, precision: Any, stale: bool) -> None:
    spec = DeviceSpec(runtime, precision, threads, stale=stale)
    assert DeviceSpec.parse(str(spec)) == spec
    elsewhere = DeviceSpec("onnxruntime", precision, threads, "ssh://a@b:1", "python3.12", stale)
    assert DeviceSpec.parse(str(elsewhere)) == elsewhere


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("host:opnvino", ("opnvino", "openvino")),
        ("host:", ("''", "onnxruntime")),
        ("host:int9", ("int9", "int8")),
        ("host:thread=2", ("thread=2", "threads=N")),
        ("host:threads=0", ("0", "1 to 1024")),
        ("host:threads=-1", ("-1", "1 to 1024")),
        ("host:threads=two", ("two", "whole number")),
        ("host:threads=99999", ("99999", "1 to 1024")),
        ("host:threads=99999999999999999999", ("whole number",)),
        ("host:torch,openvino", ("runtime twice",)),
        ("host:threads=2,threads=2", ("threads twice",)),
        ("host,stale,stale", ("stale twice",)),
        ("host:stael", ("stael", "did you mean stale")),
        ("host:python=/usr/bin/python3", ("another machine",)),
        ("ssh://", ("board",)),
        ("ssh://-oProxyCommand=x@board", ("address",)),
        ("ssh://-oProxyCommand", ("address",)),
        ("ssh://board:0", ("port",)),
        ("ssh://board:70000", ("port",)),
        ("ssh://board name", ("board name",)),
        ("ssh://board;reboot", ("board;reboot",)),
        ("ssh://board,torch", ("torch", "onnxruntime only")),
        ("ssh://board,python=python3;reboot", ("python3;reboot",)),
        ("ssh://board,python=", ("python=",)),
        ("pixel1", ("pixel1", "host[:RUNTIME]")),
        ("host:" + "x" * 400, ("the form is",)),
    ],
)
def test_what_is_refused(text: str, words: tuple[str, ...]) -> None:
    with pytest.raises((DeviceError, UnknownNameError)) as caught:
        DeviceSpec.parse(text)
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def test_options_join_the_text() -> None:
    host = DeviceSpec()
    assert str(host.with_options(runtime="torch", threads=2)) == "host:torch,threads=2"
    assert host.with_options() == host
    stale = host.with_options(stale=True)
    assert str(stale) == "host:onnxruntime,stale"
    assert stale.with_options(threads=2, stale=False).stale
    board = DeviceSpec.parse("ssh://board,threads=4")
    assert str(board.with_options(precision="int8", threads=4)) == "ssh://board,int8,threads=4"


@pytest.mark.parametrize(
    ("text", "options", "word"),
    [
        ("host:torch", {"runtime": "openvino"}, "--runtime openvino contradicts the device host:torch"),
        ("host:threads=2", {"threads": 3}, "--threads 3 contradicts"),
        ("host", {"runtime": "onnxrutime"}, "did you mean onnxruntime"),
        ("host", {"precision": "int4"}, "unknown precision 'int4'"),
        ("host", {"threads": 0}, "threads is 0"),
        ("ssh://board", {"runtime": "torch"}, "onnxruntime only"),
    ],
)
def test_options_that_cannot_join(text: str, options: dict[str, Any], word: str) -> None:
    with pytest.raises((DeviceError, UnknownNameError), match=word):
        DeviceSpec.parse(text).with_options(**options)


@pytest.mark.parametrize(("text", "so"), [("host", True), ("host:", True), ("hosts", False), ("ssh:board", False)])
def test_which_texts_are_of_measured_devices(text: str, so: bool) -> None:
    assert DeviceSpec.names(text) is so
