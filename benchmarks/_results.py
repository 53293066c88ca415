"""Keep what a benchmark found: one folder a claim, with the machine, versions, seeds and command that made it."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = (
    "mnv3search", "numpy", "scipy", "torch", "torchvision", "onnx", "onnxruntime", "openvino", "optuna", "fvcore",
    "timm",
)  # fmt: skip


def write_results(name: str, numbers: Mapping[str, object], readme: str, seeds: Sequence[int] = ()) -> Path:
    """Write ``results/<today>-<name>/`` with ``manifest.json``, ``numbers.json`` and ``README.md``.

    Each file is replaced atomically, so an interrupted benchmark never leaves half of one.

    Args:
        name: what the claim is about, a short word with no slash in it (``counts``, ``prior``).
        numbers: the figures, anything that JSON can hold; numpy scalars and arrays too. NaN and infinity are refused.
        readme: what was done and found, in Markdown.
        seeds: every random seed that the figures depend on.

    Returns:
        The folder, so that a benchmark can add tables of its own beside the three files.

    Raises:
        ValueError: if ``name`` is not a plain folder name, or a figure is NaN or infinite.
        TypeError: if a figure is of a type that JSON cannot hold.
    """
    if not name or name != Path(name).name or name.startswith("."):
        raise ValueError(f"result name {name!r} must be a plain folder name; give a word like 'counts'")
    today = datetime.datetime.now(tz=datetime.UTC).date().isoformat()
    folder = ROOT / "results" / f"{today}-{name}"
    files = {
        "numbers.json": _as_json(numbers),
        "README.md": readme.strip() + "\n",
        "manifest.json": _as_json(manifest(today, seeds)),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for file_name, text in files.items():
        _write_atomically(folder / file_name, text)
    return folder


def manifest(date: str, seeds: Sequence[int]) -> dict[str, object]:
    """The circumstances of a result: date, command, seeds, hardware, versions."""
    return {
        "date": date,
        "command": command(sys.orig_argv),
        "seeds": list(seeds),
        "hardware": hardware(),
        "versions": {"python": platform.python_version(), **_package_versions()},
    }


def hardware() -> dict[str, object]:
    """This machine's CPU model, cores that this process may use, and memory in GiB."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count()
    return {"cpu": _cpu_model(), "cores": cores, "memory_gib": _memory_gib(), "system": platform.system()}


def command(argv: Sequence[str]) -> str:
    """The command line as one would write it in the checkout: ``python``, and no absolute path of this machine."""
    environment = "".join(
        f"{key}={os.environ[key]} " for key in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if key in os.environ
    )
    words = ["python", *(_relative(word) for word in argv[1:])]
    return environment + shlex.join(words)


def _relative(word: str) -> str:
    option, separator, value = word.partition("=") if word.startswith("--") else ("", "", word)
    if not Path(value).is_absolute():
        return word
    data = os.environ.get("MNV3SEARCH_DATA")
    path = Path(os.path.normpath(value))
    if path.is_relative_to(ROOT):
        shown = str(path.relative_to(ROOT))
    elif data and path.is_relative_to(data):
        shown = str("data" / path.relative_to(data))
    else:
        shown = path.name
    return f"{option}{separator}{shown}"


def _package_versions() -> dict[str, str]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _cpu_model() -> str:
    with contextlib.suppress(OSError):  # not Linux: the platform's own answer has to do
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, OSError, ValueError):
        return None


def _as_json(value: Mapping[str, object]) -> str:
    return json.dumps(value, indent=2, allow_nan=False, default=_plain) + "\n"


def _plain(value: object) -> object:
    """Numpy's scalars and arrays as Python's; named by their method so that numpy need not be imported here."""
    to_list = getattr(value, "tolist", None)
    if to_list is None:
        raise TypeError(f"{type(value).__name__} {value!r} cannot be kept as JSON; convert it to a number or a string")
    plain: object = to_list()
    return plain


def _write_atomically(path: Path, text: str) -> None:
    part = path.with_name(path.name + ".part")
    try:
        with part.open("w", encoding="utf-8") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
