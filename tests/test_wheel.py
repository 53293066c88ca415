"""A built wheel works away from the checkout, in an environment that has its dependencies and no more."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

pytestmark = [pytest.mark.slow, pytest.mark.skipif(not (ROOT / ".git").exists(), reason="builds from the checkout")]


def run(words: Sequence[str | Path], cwd: Path) -> str:
    environment = {key: value for key, value in os.environ.items() if key not in {"PYTHONPATH", "MNV3SEARCH_DATA"}}
    done = subprocess.run(words, cwd=cwd, env=environment, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, f"{words}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    dist = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", dist], cwd=ROOT)
    (built,) = dist.glob("mnv3search-*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The ``bin`` folder of an environment with the wheel; the tests' own site-packages stand behind it.

    A path that a ``.pth`` file names has its own ``.pth`` files ignored, so the editable install is not seen.
    """
    home = tmp_path_factory.mktemp("elsewhere") / "venv"
    venv.create(home, with_pip=False)
    python = home / "bin" / "python"
    site_packages = Path(
        run([python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"], cwd=home).strip()
    )
    pip: list[str | Path] = [sys.executable, "-m", "pip", "--python", python, "--disable-pip-version-check"]
    run([*pip, "install", "--quiet", "--no-deps", "--no-index", wheel], cwd=home)
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n", encoding="utf-8")
    return home / "bin"


def test_holds_the_spaces_the_types_and_all_data(wheel: Path) -> None:
    held = set(zipfile.ZipFile(wheel).namelist())
    package = {
        str(path.relative_to(ROOT))
        for path in (ROOT / "mnv3search").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts and not path.name.endswith(".part")
    }
    shelf = ROOT / "search_spaces"
    spaces = {f"mnv3search/_spaces/{path.relative_to(shelf)}" for path in shelf.rglob("*") if path.is_file()}
    assert "mnv3search/py.typed" in package
    assert spaces
    assert package | spaces <= held
    outside = {name.split("/")[0] for name in held} - {"mnv3search"}
    assert all(name.endswith(".dist-info") for name in outside)


def test_is_imported_from_where_it_was_installed(installed: Path, tmp_path: Path) -> None:
    where = run([installed / "python", "-c", "import mnv3search; print(mnv3search.__file__)"], cwd=tmp_path)
    assert Path(where.strip()).is_relative_to(installed.parent)


def test_lists_every_space(installed: Path, tmp_path: Path) -> None:
    listed = run([installed / "mnv3search", "spaces"], cwd=tmp_path)
    spaces = {path.stem for path in (ROOT / "search_spaces").glob("*.yaml")}
    assert {name for name in spaces if name not in listed} == set()


def test_counts(installed: Path, tmp_path: Path) -> None:
    answer = json.loads(run([installed / "mnv3search", "count", "mobilenet_v3_large", "--json"], cwd=tmp_path))
    (network,) = answer["networks"]
    assert (network["name"], network["parameters"], network["madds"]) == ("mobilenet_v3_large", 5_483_032, 216_589_760)


def test_searches(installed: Path, tmp_path: Path) -> None:
    words = ["search", "--space", "mnv3_large", "--target-latency", "50ms", "--trials", "200", "--seed", "0"]
    answer = json.loads(run([installed / "mnv3search", *words, "--out", tmp_path / "found", "--json"], cwd=tmp_path))
    assert answer["feasible"] is True
    assert 0 < answer["best"]["latency_ms"] <= 50
    assert (tmp_path / "found" / "best.json").is_file()
