"""A board for tests: a real sshd on the loopback, where another, unprivileged user has a Python of their own."""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from mnv3search.latency.remote.channel import Patience
from mnv3search.latency.remote.remote_runtime import RemoteRuntime, open_remote

SSHD = Path("/usr/sbin/sshd")
SEPARATION = Path("/run/sshd")  # sshd asks for this empty folder
PROGRAMS = ("ssh", "ssh-keygen", "useradd", "userdel")
PACKAGES = ("numpy", "numpy.libs", "onnxruntime")
NOT_COPIED = shutil.ignore_patterns("site-packages", "test", "tests", "idlelib", "ensurepip", "config-*", "tools")
SECONDS = 20.0

SSHD_CONFIG = """\
ListenAddress 127.0.0.1
Port {port}
HostKey {folder}/host_key
AuthorizedKeysFile {folder}/authorized_keys
PidFile none
StrictModes no
UsePAM no
PasswordAuthentication no
KbdInteractiveAuthentication no
AllowUsers {user}
SetEnv PATH={folder}/bin:/usr/bin:/bin
"""
SSH_CONFIG = """\
Host *
    IdentityFile {folder}/key
    IdentitiesOnly yes
    IdentityAgent none
    UserKnownHostsFile {folder}/known_hosts
    GlobalKnownHostsFile none
    StrictHostKeyChecking {checking}
    UpdateHostKeys no
"""


@dataclass(frozen=True)
class Board:
    """What a test needs of it; ``folder`` holds keys and configurations, and ``folder/home`` is the user's."""

    folder: Path
    user: str
    port: int

    @property
    def address(self) -> str:
        return f"{self.user}@127.0.0.1:{self.port}"

    @property
    def options(self) -> tuple[str, ...]:
        """What the user's own configuration of ssh is elsewhere."""
        return ("-F", str(self.folder / "ssh_config"))

    def open(self, **given: Any) -> RemoteRuntime:
        given = {"options": self.options, "patience": Patience(start=30, reply=60), **given}
        return open_remote(given.pop("address", self.address), **given)

    def program(self, name: str, text: str) -> str:
        """A script on the board; its path there."""
        path = self.folder / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    def agents(self) -> list[int]:
        """Processes of the board's user that run Python."""
        uid = pwd.getpwnam(self.user).pw_uid
        return [pid for pid in processes_of(uid) if b"python" in command_of(pid)]

    def kill_agents(self) -> int:
        agents = self.agents()
        for pid in agents:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return len(agents)


def processes_of(uid: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and entry.stat().st_uid == uid:
                found.append(int(entry.name))
    return found


def command_of(pid: int) -> bytes:
    with contextlib.suppress(OSError):
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    return b""


def why_not() -> str | None:
    """Why there can be no board here."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if os.geteuid() != 0:
        return "needs root: makes a user and runs sshd"
    if not SSHD.exists() or missing:
        return f"needs {', '.join([*missing, *([] if SSHD.exists() else ['sshd'])])}: apt-get install openssh-server"
    return None


@contextlib.contextmanager
def ssh_board() -> Iterator[Board]:
    """A board for as long as the block lasts; the test is skipped where there can be none."""
    reason = why_not()
    if reason:
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="mnv3search-board-"))
    user = f"mnv3b{os.getpid()}"
    try:
        folder.chmod(0o755)
        add_user(user, folder / "home")
        try:
            install_python(folder)
            with running_sshd(folder, user) as port:
                yield Board(folder, user, port)
        finally:
            remove_user(user)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def add_user(user: str, home: Path) -> None:
    words = ["useradd", "--no-create-home", "--home-dir", str(home), "--shell", "/bin/bash", "--password", "*"]
    for _ in range(int(SECONDS)):  # another worker may hold the lock of /etc/passwd
        done = subprocess.run([*words, user], capture_output=True, text=True, check=False)
        if done.returncode == 0:
            break
        time.sleep(1)
    else:
        pytest.skip(f"no user can be made here: {done.stderr.strip()}")
    home.mkdir()
    os.chown(home, pwd.getpwnam(user).pw_uid, -1)


def remove_user(user: str) -> None:
    uid = pwd.getpwnam(user).pw_uid
    for _ in range(int(SECONDS)):
        for pid in processes_of(uid):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        if subprocess.run(["userdel", user], capture_output=True, check=False).returncode == 0:
            return
        time.sleep(1)


def install_python(folder: Path) -> None:
    """This interpreter and what the agent needs, by hard links where they go; the user may see nothing of ours."""
    name, base = f"python{sys.version_info[0]}.{sys.version_info[1]}", Path(sys.base_prefix)
    library, packages = folder / "python" / "lib" / name, folder / "packages"
    shutil.copytree(base / "lib" / name, library, ignore=NOT_COPIED, copy_function=link, symlinks=True)
    for shared in (base / "lib").glob("libpython*.so*"):
        link(str(shared.resolve()), str(folder / "python" / "lib" / shared.name))
    (folder / "python" / "bin").mkdir()
    link(str(Path(sys.executable).resolve()), str(folder / "python" / "bin" / name))
    for package in PACKAGES:
        found = next((Path(path) / package for path in sys.path if (Path(path) / package).is_dir()), None)
        if found is not None:
            shutil.copytree(
                found, packages / package, ignore=shutil.ignore_patterns("tests", "tools"), copy_function=link
            )
    (folder / "bin").mkdir()
    board = Board(folder, "", 0)
    bare = f"LD_LIBRARY_PATH={folder}/python/lib exec {folder}/python/bin/{name}"
    board.program("python3", f'PYTHONPATH={packages} {bare} -B "$@"')
    board.program("bare-python3", f'{bare} -B "$@"')


def link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


@contextlib.contextmanager
def running_sshd(folder: Path, user: str) -> Iterator[int]:
    """Its port."""
    for key in ("host_key", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / key)], check=True)
    shutil.copy(folder / "key.pub", folder / "authorized_keys")
    (folder / "authorized_keys").chmod(0o644)
    SEPARATION.mkdir(mode=0o755, exist_ok=True)
    port = free_port()
    (folder / "sshd_config").write_text(SSHD_CONFIG.format(folder=folder, port=port, user=user))
    (folder / "ssh_config").write_text(SSH_CONFIG.format(folder=folder, checking="yes"))
    host_key = " ".join((folder / "host_key.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {host_key}\n")
    with (folder / "sshd.log").open("wb") as log:
        words = [str(SSHD), "-D", "-e", "-f", str(folder / "sshd_config")]
        process = subprocess.Popen(words, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    try:
        wait_for(port, process, folder / "sshd.log")
        yield port
    finally:
        process.terminate()
        process.wait(SECONDS)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1.0):
            return
        time.sleep(0.05)
    pytest.skip(f"sshd does not start here: {log.read_text().strip()[-300:]}")
