"""Boards over a real ssh: an sshd on the loopback where another user has a Python of their own."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from contracts.test_runtimes import RuntimeContract
from ssh_board import SSH_CONFIG, Board, ssh_board

from mnv3search.architecture import Architecture
from mnv3search.blocks import BlockSpec
from mnv3search.errors import DeviceError, MeasurementError
from mnv3search.families import published
from mnv3search.latency.keys import network_key, this_machine, unit_key
from mnv3search.latency.measured.measuring import MeasuringPlan
from mnv3search.latency.measured.table_device import TableDevice
from mnv3search.latency.runtimes.base import Runtime, Subject
from mnv3search.latency.runtimes.registry import load_runtime
from mnv3search.layers import units

SUBJECT = published("mobilenet_v3_small", resolution=32)
PLAN = MeasuringPlan(rounds=5, min_seconds=0, max_rounds=8, warmup=1)


@pytest.fixture(scope="module")
def board() -> Iterator[Board]:
    with ssh_board() as one:
        yield one


def tiny(count: int) -> list[Architecture]:
    """The first blocks of V3-Small, each wider and on a larger image: even a busy machine times them in this order."""
    base = replace(SUBJECT, blocks=SUBJECT.blocks[:4], head=replace(SUBJECT.head, hidden_channels=None))

    def wider(block: BlockSpec, by: int) -> BlockSpec:
        return replace(block, expanded_channels=block.expanded_channels + 16 * by)

    wide = [base.map_blocks(lambda block, by=by: wider(block, by)) for by in range(count)]  # type: ignore[misc]
    return [one.with_resolution(base.resolution + 32 * by) for by, one in enumerate(wide)]


def gone(board: Board) -> bool:
    """Whether no agent is left on the board, after at most ten seconds."""
    for _ in range(100):
        if not board.agents():
            return True
        time.sleep(0.1)
    return False


class TestRuntimeOnABoard(RuntimeContract):
    """The suite that the runtimes of this machine keep to, over ssh."""

    @pytest.fixture(scope="class")
    def _opened(self, board: Board) -> Iterator[Runtime]:
        runtime = board.open()
        yield runtime
        runtime.close()

    @pytest.fixture
    def runtime(self, _opened: Runtime) -> Runtime:
        return _opened

    def test_at_one_thread_the_whole_call_runs_in_the_calling_thread(self, runtime: Runtime) -> None:
        pytest.skip("the call runs in another process, perhaps of another machine")


def test_another_users_python_computes_and_times_and_keeps_nothing(board: Board) -> None:
    runtime, here = board.open(), load_runtime("onnxruntime")
    assert runtime.version == here.version
    assert runtime.machine == this_machine()
    assert len(board.agents()) == 1
    subjects: list[Subject] = [SUBJECT, units(SUBJECT)[3]]
    sessions = [runtime.prepare(subject) for subject in subjects]
    times = runtime.time_in_turn([*sessions, *sessions])
    assert len(times) == 4
    assert all(0 < seconds < 10 for seconds in times)
    for session, subject in zip(sessions, subjects, strict=True):
        np.testing.assert_array_equal(session.output(), here.prepare(subject).output())
    runtime.close()
    assert gone(board)
    assert list((board.folder / "home").iterdir()) == []


def test_the_agent_ends_with_the_process_that_asked(board: Board) -> None:
    runtime = board.open()
    runtime.prepare(SUBJECT)
    del runtime
    assert gone(board)


def test_login_files_that_print_do_not_disturb(board: Board) -> None:
    bashrc = board.folder / "home" / ".bashrc"
    bashrc.write_text("echo Welcome, you have mail\necho and more >&2\n")
    bashrc.chmod(0o644)
    try:
        assert board.open().prepare(SUBJECT).time_once() > 0
    finally:
        bashrc.unlink()


def test_a_table_is_measured_on_the_board_and_kept_here(board: Board, tmp_path: Path) -> None:
    calibrating = tiny(6)
    device = TableDevice(
        board.open(), cache_dir=tmp_path, plan=PLAN, reference=calibrating[0], calibrate_on=calibrating
    )
    assert (device.latency_ms(tiny(3)) > 0).all()
    assert device.table.key.device == this_machine()
    assert [one.rounds >= 5 for one in device.measure(tiny(2))] == [True, True]


def test_a_board_that_is_lost_half_way_loses_no_round(board: Board, tmp_path: Path) -> None:
    calibrating = tiny(6)
    plan = replace(PLAN, rounds=30, max_rounds=40)
    runtime = board.open()

    def device() -> TableDevice:
        return TableDevice(runtime, cache_dir=tmp_path, plan=plan, reference=calibrating[0], calibrate_on=calibrating)

    def pull_the_plug(done: int, total: int, _: str) -> None:
        if done > total // 2:
            board.kill_agents()

    first, parts = device(), list(dict.fromkeys(unit for a in calibrating for unit in units(a)))
    with pytest.raises(MeasurementError, match=r"stopped answering .* kept: run it again to go on"):
        first.prepare(parts, pull_the_plug)
    keys = [*map(unit_key, parts), *map(network_key, calibrating)]
    kept = [device().table.rounds_of(key) for key in keys]
    assert kept == [first.table.rounds_of(key) for key in keys]
    assert 0 < sum(kept) < 30 * len(keys)
    second = device()
    second.prepare(parts)
    assert min(second.table.rounds_of(key) for key in keys) >= 30
    assert (second.latency_ms(calibrating) > 0).all()


def test_no_such_python(board: Board) -> None:
    with pytest.raises(DeviceError, match=r"has no /opt/none/python3: .*ssh://.*,python=/path/to/python3"):
        board.open(python="/opt/none/python3")


def test_a_python_without_the_packages(board: Board) -> None:
    bare = str(board.folder / "bin" / "bare-python3")
    with pytest.raises(
        DeviceError, match=r"lacks numpy and onnxruntime; run there: .* -m pip install numpy onnxruntime"
    ):
        board.open(python=bare)
    numpy_only = board.program("numpy-python3", f'PYTHONPATH={board.folder}/numpy-only exec {bare} "$@"')
    (board.folder / "numpy-only").mkdir()
    for name in ("numpy", "numpy.libs"):
        (board.folder / "numpy-only" / name).symlink_to(board.folder / "packages" / name)
    with pytest.raises(DeviceError, match="lacks onnxruntime; run there"):
        board.open(python=numpy_only)


def test_a_python_that_is_too_old(board: Board) -> None:
    text = 'import sys; sys.version_info = (3, 7); sys.version = \\"3.7.2 (default)\\"; '
    old = board.program("old-python3", f'exec {board.folder}/bin/bare-python3 -c "{text}$2"')
    with pytest.raises(DeviceError, match=r"Python 3\.8 or newer is needed, this is 3\.7\.2"):
        board.open(python=old)


def test_nobody_listens(board: Board) -> None:
    with pytest.raises(
        DeviceError, match=r"ssh does not get to pi@127.0.0.1:1: .*Connection refused; see that the board"
    ):
        board.open(address="pi@127.0.0.1:1")


def test_no_such_host(board: Board) -> None:
    with pytest.raises(DeviceError, match=r"ssh does not get to pi@board\.invalid: .*; see that the board is on"):
        board.open(address="pi@board.invalid")


def test_a_key_that_the_board_does_not_know(board: Board) -> None:
    with pytest.raises(
        DeviceError, match=r"Permission denied \(publickey\); it has to log in by key .*: ssh-copy-id -p"
    ):
        board.open(options=("-F", configuration(board, "stranger", IdentityFile="none")))


def test_a_host_key_that_is_unknown_or_another(board: Board) -> None:
    (board.folder / "nothing_known").touch()
    unknown = configuration(board, "unknown", UserKnownHostsFile=f"{board.folder}/nothing_known")
    with pytest.raises(
        DeviceError, match=r"its host key is unknown here: run `ssh -p \d+ .*` once and check and accept"
    ):
        board.open(options=("-F", unknown))
    key = " ".join((board.folder / "key.pub").read_text().split()[:2])
    (board.folder / "known_otherwise").write_text(f"[127.0.0.1]:{board.port} {key}\n")
    changed = configuration(board, "changed", UserKnownHostsFile=f"{board.folder}/known_otherwise")
    with pytest.raises(DeviceError, match="its host key is another than before: find out why"):
        board.open(options=("-F", changed))


def test_a_host_of_the_users_configuration(board: Board) -> None:
    path = board.folder / "alias_config"
    alias = f"Host my_board\n    HostName 127.0.0.1\n    Port {board.port}\n    User {board.user}\n"
    path.write_text(alias + SSH_CONFIG.format(folder=board.folder, checking="no"))
    assert board.open(address="my_board", options=("-F", str(path))).prepare(SUBJECT).time_once() > 0


def configuration(board: Board, name: str, **changed: str) -> str:
    """The board's ssh configuration with other values."""
    lines = SSH_CONFIG.format(folder=board.folder, checking="yes").splitlines()
    kept = [line for line in lines if line.split()[0] not in changed]
    path = board.folder / f"{name}_config"
    path.write_text("\n".join([*kept, *(f"    {key} {value}" for key, value in changed.items())]) + "\n")
    return str(path)
