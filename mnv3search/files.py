"""Files written whole or not at all."""

from __future__ import annotations

import contextlib
import errno
import os
import re
import signal
import stat
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from mnv3search.errors import RunError

_NO_LOCKS = {errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.EINVAL, errno.EBADF}
"""What file systems without such locks answer: work goes on without."""
LOCK = ".lock"
_PART = re.compile(r"\..*\.part(\.[^.]*)?")  # what write_atomic writes first


def write_atomic(path: Path, write: Callable[[Path], object]) -> None:
    """Let ``write`` fill a temporary file next to ``path``, then move it into place.

    A reader sees the old content or the new, never a part; a link is replaced, not followed. A crash leaves at most
    ``.NAME.part``, which the next writing of ``path`` takes over.

    Raises:
        RunError: the file cannot be written: a full disk, a missing folder, no permission.
    """
    try:
        handle, temporary = _claimed(path)
        try:
            write(temporary)
            temporary.replace(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        finally:
            os.close(handle)
    except OSError as error:
        remedy = (
            f"make the folder {path.parent} first"
            if isinstance(error, FileNotFoundError)
            else "what was written before is intact: free some space or choose another folder, then resume"
        )
        raise RunError(f"cannot write {path}: {error.strerror or error}; {remedy}") from None
    except UnicodeEncodeError as error:
        name = error.object[max(0, error.start - 20) : error.end + 20].encode("utf-8", "backslashreplace").decode()
        raise RunError(f"cannot write {path}: it would hold a name that is not UTF-8 (…{name}…); rename that") from None


def part_name(name: str, number: int = 0) -> str:
    """What the file ``name`` is called while it is written; a ``number`` where others write it as well."""
    path = Path(name)
    return f".{path.stem}{f'.{number}' if number else ''}.part{path.suffix}"


def _claimed(path: Path) -> tuple[int, Path]:
    """An empty file next to ``path``, locked for this process until its descriptor is closed."""
    number = 0
    while (handle := _open_locked(path.with_name(part_name(path.name, number)))) is None:
        number += 1  # another process writes the same file just now
    return handle, path.with_name(part_name(path.name, number))


def _open_locked(path: Path) -> int | None:
    """The file at ``path``, made where it is missing, empty and locked; None where another process has locked it."""
    while True:
        handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        try:
            free = _locked(handle)
            if free and _is_still(handle, path):
                os.ftruncate(handle, 0)
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)
        if not free:
            return None  # else the process that had it has just moved or removed it


def _is_still(handle: int, path: Path) -> bool:
    """Whether ``path`` is the file that was opened: who held the lock before may have moved it into its place."""
    try:
        return os.path.samestat(os.fstat(handle), path.lstat())
    except FileNotFoundError:
        return False


def tidy(folder: Path) -> None:
    """Remove what a process that was killed was writing in ``folder``, which this one has locked."""
    for parent, folders, files in os.walk(folder):
        for name in (*folders, *files):
            entry = Path(parent, name)
            mode = entry.lstat().st_mode
            if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
                what = "a link" if stat.S_ISLNK(mode) else "no regular file"
                raise RunError(f"{entry} is {what}, which nothing here writes: put the file itself there, or remove it")
            if _PART.fullmatch(name) and stat.S_ISREG(mode):
                entry.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write ``text`` as UTF-8, whole or not at all (see :func:`write_atomic`)."""
    write_atomic(path, lambda temporary: _fill(temporary, text.encode()))


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content``, whole or not at all (see :func:`write_atomic`)."""
    write_atomic(path, lambda temporary: _fill(temporary, content))


def _fill(file: Path, content: bytes) -> None:
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def append_lines(path: Path, lines: Iterable[str]) -> None:
    """Append ``lines`` as UTF-8 and wait until they are on disk; a link is refused."""
    try:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with os.fdopen(os.open(path, flags, 0o666), "ab") as stream:
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
    before = {end: signal.signal(end, lambda number, _: late.append(number)) for end in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for end, handler in before.items():
            signal.signal(end, handler)
        for number in late[:1]:
            signal.raise_signal(number)


def locks_work(folder: Path) -> bool:
    """Whether files in ``folder`` can be locked; assumed where none can be made there."""
    try:
        import fcntl
    except ImportError:  # Windows, which locks files by other means
        return True
    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            fcntl.lockf(probe, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno not in _NO_LOCKS
    return True


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Lock a folder or a file for this process alone; the lock is the operating system's and ends with the process.

    It is on a file of its own, :data:`LOCK` in the folder or ``.NAME.lock`` next to the file, which is gone afterwards:
    NFS locks only what is open for writing, and drops a lock when anything closes the file that it is on.

    Raises:
        RunError: another process has locked it, or no file can be made there.
    """
    lock = path / LOCK if path.is_dir() else path.with_name(f".{path.name}{LOCK}")
    try:
        handle = _open_locked(lock)
    except OSError as error:
        raise RunError(f"cannot write {lock}: {error.strerror}; choose a folder that can be written") from None
    if handle is None:
        raise RunError(f"another process works on {path}; wait for it, or choose another folder")
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            if _is_still(handle, lock):
                lock.unlink()
        os.close(handle)


def _locked(handle: int) -> bool:
    """Lock an open file for this process; False where another one has."""
    try:
        import fcntl
    except ImportError:  # no such lock on this system
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
    return True
