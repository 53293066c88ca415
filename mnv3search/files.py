"""Files written whole or not at all."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from mnv3search.errors import RunError


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file beside ``path``, then move it into place.

    A reader sees the old content or the new, never a part; a crash leaves at most a ``*.part`` file.

    Raises:
        RunError: the file cannot be written: a full disk, a missing folder, no permission.
    """
    temporary: Path | None = None
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=f".part{path.suffix}", dir=path.parent)
        os.close(handle)
        temporary = Path(name)
        write(temporary)
        temporary.chmod(0o644)
        temporary.replace(path)
    except OSError as error:
        remedy = (
            f"make the folder {path.parent} first"
            if isinstance(error, FileNotFoundError)
            else "what was written before is intact: free some space or choose another folder, then resume"
        )
        raise RunError(f"cannot write {path}: {error.strerror or error}; {remedy}") from None
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all (see :func:`write_atomic`)."""

    def write(temporary: Path) -> None:
        with temporary.open("w", encoding="utf-8", newline="") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())

    write_atomic(path, write)


def append_lines(path: Path, lines: Iterable[str]) -> None:
    """Append ``lines`` as UTF-8 and wait until they are on disk.

    Raises:
        RunError: the file cannot be written.
    """
    try:
        with path.open("ab") as stream:
            stream.write("".join(f"{line}\n" for line in lines).encode())
            stream.flush()
            os.fsync(stream.fileno())
    except OSError as error:
        raise RunError(
            f"cannot write {path}: {error.strerror}; what was written before is intact: free some space, then resume"
        ) from None


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Answer signals that ask to end only afterwards: for the moment that a last note takes."""
    if threading.current_thread() is not threading.main_thread():  # where Python lets no handler be set, or called
        yield
        return
    late: list[int] = []
    asking = (signal.SIGINT, signal.SIGTERM)
    before = {asked: signal.signal(asked, lambda number, _: late.append(number)) for asked in asking}
    try:
        yield
    finally:
        for asked, handler in before.items():
            signal.signal(asked, handler)
        for number in late[:1]:
            signal.raise_signal(number)


@contextlib.contextmanager
def held(folder: Path) -> Iterator[None]:
    """Hold ``folder`` for this process alone; the lock is the operating system's and ends with the process.

    Raises:
        RunError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:  # no such lock on this system
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RunError(f"another process works on {folder}; wait for it, or choose another folder") from None
        yield
    finally:
        os.close(handle)
