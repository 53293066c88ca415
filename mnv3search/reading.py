"""What others wrote, read with care: regular files alone, never more than a limit, JSON that means one thing."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections import Counter
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

MAX_DEPTH = 64
_MAX_DIGITS = 300  # so that every integer is a finite float too


def open_regular(path: str | Path, flags: int = 0) -> BufferedReader:
    """A regular file, opened to read; links are followed, unless ``flags`` is ``os.O_NOFOLLOW``.

    Raises:
        OSError: it is missing, may not be read, or is a pipe, a device or a folder (refused without waiting);
            ``strerror`` says which.
    """
    try:
        handle = os.open(path, flags | os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except ValueError as error:
        raise OSError(errno.EINVAL, f"it cannot be a path: {error}", str(path)) from None
    except OSError as error:
        if error.errno == errno.ELOOP and flags & os.O_NOFOLLOW:
            raise OSError(errno.ELOOP, "it is a link; put the file itself there", str(path)) from None
        raise
    try:
        mode = os.fstat(handle).st_mode
        if stat.S_ISDIR(mode):
            raise IsADirectoryError(errno.EISDIR, "it is a folder; give a file", str(path))
        if not stat.S_ISREG(mode):
            what = "a pipe" if stat.S_ISFIFO(mode) else "a device"
            raise OSError(errno.EINVAL, f"it is {what}, not a regular file; copy its content into one", str(path))
        return os.fdopen(handle, "rb")
    except OSError:
        os.close(handle)
        raise


def read_bounded(path: str | Path, limit: int, flags: int = 0) -> bytes:
    """The content of a regular file of at most ``limit`` bytes; an OSError as of :func:`open_regular`, or if larger."""
    with open_regular(path, flags) as stream:
        content = stream.read(limit + 1) if os.fstat(stream.fileno()).st_size <= limit else b""
        if len(content) > limit or os.fstat(stream.fileno()).st_size > limit:
            raise OSError(errno.EFBIG, f"it has more than the {limit:,} bytes that such a file may have", str(path))
        return content


def utf8(content: bytes) -> str:
    """Text of bytes in UTF-8, with or without a byte order mark; a ValueError where they are not."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"byte {error.start + 1} is not UTF-8; save it as text in UTF-8") from None


def read_json(path: str | Path, limit: int, flags: int = 0) -> Any:
    """The JSON value in a file of at most ``limit`` bytes; raises as :func:`read_bounded` and :func:`parse_json`."""
    return parse_json(read_bounded(path, limit, flags))


def parse_json(content: bytes | str) -> Any:
    """The value of a JSON text (RFC 8259), in which every key is given once and every number is finite.

    Raises:
        ValueError: another text, an integer of over 300 digits, half a surrogate pair, or nested deeper than 64; the
            message is one line, without the file.
    """
    text = content if isinstance(content, str) else utf8(content)
    try:
        value = json.loads(
            text, object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant
        )
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    _check_depth(value)
    if "\\u" in text:
        try:
            json.dumps(value, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise ValueError("a text holds half of a surrogate pair (\\ud800 to \\udfff), which no text is") from None
    return value


_TOO_DEEP = f"its values are nested deeper than {MAX_DEPTH}"


def _check_depth(value: object) -> None:
    level = [value]
    for _ in range(MAX_DEPTH + 1):
        level = [
            child
            for parent in level
            if isinstance(parent, dict | list)
            for child in (parent.values() if isinstance(parent, dict) else parent)
            if isinstance(child, dict | list)
        ]
        if not level:
            return
    raise ValueError(_TOO_DEEP)


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        twice = Counter(key for key, _ in pairs).most_common(1)[0][0]
        raise ValueError(f"the key {twice[:60]!r} is given twice in one object; keep one")
    return found


def _integer(text: str) -> int:
    if len(text) > _MAX_DIGITS:
        raise ValueError(f"the integer {text[:20]}… has {len(text)} digits; at most {_MAX_DIGITS} are read")
    return int(text)


def _float(text: str) -> float:
    value = float(text)
    if value - value != 0:
        raise ValueError(f"the number {text[:40]} is too large to be finite")
    return value


def _constant(text: str) -> NoReturn:
    raise ValueError(f"{text} is no number of JSON; numbers are finite")
