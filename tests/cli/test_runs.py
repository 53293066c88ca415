"""The main job and its parts, end to end, with a small budget."""

from __future__ import annotations

import csv
import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mnv3search.architecture import from_mapping, load_architecture
from mnv3search.cost import count
from mnv3search.files import locked
from mnv3search.latency.devices import load_device

Invoke = Callable[..., Any]
RUN = ("run", "--space", "mnv3_large", "--target-latency", "50ms", "--trials", "300")
FILES = {
    "manifest.json", "best.json", "candidates.csv", "pareto.csv", "netadapt.csv", "study.log", "pareto.png",
    "pareto.svg", "report.html", "space.yaml", "evaluations.jsonl", "decisions.json", "log.txt",
}  # fmt: skip


def rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="") as stream:
        return list(csv.DictReader(stream))


def created_trials(run: Path) -> int:
    return (run / "study.log").read_bytes().count(b'"op_code":4')


def test_the_main_job(invoke: Invoke, tmp_path: Path) -> None:
    outcome = invoke(*RUN, "--out", "r", "--json")
    assert (outcome.code, outcome.err) == (0, "")
    found = json.loads(outcome.out)
    best, reference = found["best"], found["reference"]
    assert found["feasible"] is True
    assert found["target_latency_ms"] == 50
    architecture = from_mapping(best["architecture"])
    assert best["latency_ms"] == pytest.approx(float(load_device("pixel1").latency_ms([architecture])[0]))
    # with 90 % confidence: 1.2816 deviations
    assert best["latency_ms"] + 1.2815 * best["latency_error_ms"] <= 50
    assert found["target"]["meets_target_measured"] is None
    assert (found["target"]["latency_ms"], found["target"]["confidence"]) == (50, 0.9)
    assert any("--confidence 0.5 aims at the prediction itself" in note for note in found["notes"])
    assert (best["madds"], best["parameters"]) == (count(architecture).madds, count(architecture).parameters)
    assert best["origin"] in {"block_search", "netadapt"}
    assert reference["origin"] == "reference"
    assert reference["published_top1"] == 75.2
    assert reference["top1"] != 75.2
    assert min(best["top1_std"], best["latency_error_ms"]) > 0
    assert found["evaluated"] >= 300
    assert {p.name for p in (tmp_path / "r").iterdir()} == FILES
    assert load_architecture(tmp_path / "r" / "best.json") == architecture
    steps = rows(tmp_path / "r" / "netadapt.csv")
    assert {s["finalist"] for s in steps} == {"1", "2", "3"}
    assert {s["kind"] for s in steps} <= {"expansion", "bottleneck"}
    candidates = rows(tmp_path / "r" / "candidates.csv")
    assert len(candidates) == 300
    assert max(float(c["latency_ms"]) for c in candidates) < 55.0
    assert json.loads((tmp_path / "r" / "manifest.json").read_text())["status"] == "finished"


def test_the_same_seed_gives_the_same_result_and_another_seed_another(invoke: Invoke) -> None:
    def best(out: str, seed: int) -> Any:
        found = json.loads(invoke(*RUN, "--out", out, "--seed", str(seed), "--json").out)["best"]
        return found

    assert best("a", 1) == best("b", 1)
    assert best("c", 2) != best("a2", 1)


def test_the_final_table_marks_what_is_estimated(invoke: Invoke) -> None:
    outcome = invoke(*RUN, "--out", "r")
    assert outcome.code == 0
    assert "est." in outcome.out
    assert "pred." in outcome.out
    assert "published" in outcome.out
    assert "r/report.html" in outcome.out
    assert "block search" in outcome.err


def written(folder: Path) -> dict[str, tuple[int, bytes]]:
    return {file.name: (file.stat().st_mtime_ns, file.read_bytes()) for file in folder.iterdir()}


def test_resuming_a_finished_run_evaluates_nothing_again_and_says_the_same(invoke: Invoke, tmp_path: Path) -> None:
    first = json.loads(invoke(*RUN, "--out", "r", "--json").out)
    trials, before = created_trials(tmp_path / "r"), written(tmp_path / "r")
    again = json.loads(invoke("run", "--resume", "r", "--json").out)
    assert again == first
    assert created_trials(tmp_path / "r") == trials
    after = written(tmp_path / "r")
    changed = {name for name in before if before[name] != after.get(name)}
    assert (changed - {"study.log", "log.txt"}, after.keys()) == (set(), before.keys()), "its report stays as it is"
    (tmp_path / "r" / "report.html").unlink()
    assert invoke("run", "--resume", "r", "--json").code == 0
    assert (tmp_path / "r" / "report.html").is_file(), "what was lost is written again"


def test_a_soft_search_takes_a_slower_network_where_the_reward_says_so(invoke: Invoke, tmp_path: Path) -> None:
    asked = ("search", "--space", "mnv3_small", "--target-latency", "0.9x", "--trials", "300", "--confidence", "0.5")
    hard = json.loads(invoke(*asked, "--out", "h", "--json").out)
    soft = json.loads(invoke(*asked, "--soft", "--reward-exponent", "-0.01", "--out", "s", "--json").out)
    target = hard["target_latency_ms"]
    assert any("reward" in note for note in soft["notes"])
    assert not any("reward" in note for note in hard["notes"])
    found = rows(tmp_path / "s" / "candidates.csv")
    assert any(float(row["latency_ms"]) > target for row in found), "networks above the target are searched as well"
    assert all(float(row["latency_ms"]) <= target for row in rows(tmp_path / "h" / "candidates.csv"))
    assert json.loads((tmp_path / "s" / "manifest.json").read_text())["settings"]["soft"] is True
    assert soft["best"]["latency_ms"] <= target, "the network that is named meets the target all the same"


LONG = ("run", "--space", "mnv3_large", "--target-latency", "50ms", "--trials", "1500")


def started(folder: Path, **options: Any) -> subprocess.Popen[str]:
    """A run in a process of its own, in ``folder``/r."""
    root = str(Path(__file__).resolve().parents[2])
    return subprocess.Popen(
        [sys.executable, "-m", "mnv3search", *LONG, "--out", "r"], cwd=folder, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": root}, **options,
    )  # fmt: skip


def wait_for(file: Path, size: int) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and (not file.exists() or file.stat().st_size < size):
        time.sleep(0.02)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What the long run finds when nothing stops it."""
    folder = tmp_path_factory.mktemp("undisturbed")
    out, _ = started(folder).communicate(timeout=300)
    assert "report" in out
    return json.loads((folder / "r" / "best.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize("stop", [signal.SIGKILL, signal.SIGINT])
def test_a_stopped_run_continues_to_the_same_result(
    invoke: Invoke, tmp_path: Path, undisturbed: Any, stop: signal.Signals
) -> None:
    process = started(tmp_path)
    wait_for(tmp_path / "r" / "study.log", 1_000_000)
    process.send_signal(stop)
    _, err = process.communicate(timeout=60)
    if stop == signal.SIGINT:
        assert process.returncode == 130
        assert "--resume" in err.splitlines()[-1]
        assert "Traceback" not in err
    kept = created_trials(tmp_path / "r")
    assert 0 < kept < 1500
    assert not (tmp_path / "r" / "best.json").exists()
    assert invoke("run", "--resume", "r", "--json").code == 0
    assert created_trials(tmp_path / "r") > kept
    assert json.loads((tmp_path / "r" / "best.json").read_text()) == undisturbed


@pytest.mark.slow
def test_a_full_disk_is_one_line_and_the_run_continues_after_it(
    invoke: Invoke, tmp_path: Path, undisturbed: Any
) -> None:
    def small_disk() -> None:  # files above this size fail to grow, as on a full disk
        resource.setrlimit(resource.RLIMIT_FSIZE, (2_000_000, 2_000_000))

    process = started(tmp_path, preexec_fn=small_disk)
    _, err = process.communicate(timeout=120)
    assert process.returncode == 2
    assert "Traceback" not in err
    assert len([line for line in err.splitlines() if line.startswith("error:")]) == 1
    assert created_trials(tmp_path / "r") > 0
    assert invoke("run", "--resume", "r", "--json").code == 0
    assert json.loads((tmp_path / "r" / "best.json").read_text()) == undisturbed


def test_search_alone_stays_within_the_target(invoke: Invoke, tmp_path: Path) -> None:
    found = json.loads(
        invoke(
            "search", "--space", "mnv3_small", "--target-latency", "0.9x", "--trials", "200", "--out", "s", "--json"
        ).out
    )
    assert found["best"]["origin"] == "block_search"
    assert found["target_latency_ms"] == pytest.approx(0.9 * found["reference"]["latency_ms"])
    assert all(float(c["latency_ms"]) <= found["target_latency_ms"] for c in rows(tmp_path / "s" / "candidates.csv"))
    assert not (tmp_path / "s" / "netadapt.csv").exists()


def test_a_step_that_no_layer_can_be_cut_by_is_to_blame(invoke: Invoke) -> None:
    done = invoke("netadapt", "mobilenet_v2", "--target-latency", "40ms", "--step", "0.9", "--out", "n")
    assert done.code == 2
    assert "no layer that was left could be cut by a whole --step of 0.9 of the latency" in done.err
    assert "set a target above" not in done.err


def test_netadapt_alone_narrows_a_published_network(invoke: Invoke, tmp_path: Path) -> None:
    found = json.loads(invoke("netadapt", "mobilenet_v3_large", "--target-latency", "0.9x", "--out", "n", "--json").out)
    assert found["best"]["origin"] == "netadapt"
    assert found["reference"]["published_top1"] == 75.2
    assert found["best"]["latency_ms"] <= 0.9 * found["reference"]["latency_ms"]
    assert found["best"]["top1"] <= found["reference"]["top1"] + 0.2
    assert len(rows(tmp_path / "n" / "netadapt.csv")) >= 5
    again = json.loads(invoke("netadapt", "--resume", "n", "--json").out)
    assert again["best"] == found["best"]
    assert invoke("run", "--resume", "n").code == 2


def test_a_run_can_be_compared_with_networks(invoke: Invoke) -> None:
    invoke("netadapt", "mobilenet_v3_small", "--target-latency", "0.95x", "--out", "n", "--json")
    assert "in place of earlier ones" not in invoke("compare", "n", "mobilenet_v3_small").out
    assert "compare.svg (in place of earlier ones)" in invoke("compare", "n", "mobilenet_v3_small").out
    found = json.loads(invoke("compare", "n", "mobilenet_v3_small", "--json").out)
    run, seed = found["networks"]
    assert run["latency_ms"] <= 0.95 * seed["latency_ms"]
    assert (run["group"], seed["published_top1"]) == ("n", 67.4)


TINY = """
format: mnv3search.space/1
description: two networks of the least widths and one of twice as many channels
defaults: {reference: mobilenet_v3_small, device: pixel1, evaluator: prior}
stem: {out_channels: 8, kernel_size: 3, stride: 2, activation: relu}
stages:
  - out_channels: [8, 16]
    stride: 2
    block: {kernel_size: [3, 7], expansion_ratio: 1, activation: relu}
head: {feature_channels: 64, hidden_channels: null, activation: relu}
"""


def test_a_finalist_that_cannot_be_narrowed_enough_takes_nothing_from_the_run(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    bounds = json.loads(invoke("run", "--space", "tiny.yaml", "--target-latency", "1us", "--out", "b", "--json").out)
    target = f"{1.0001 * bounds['fastest_ms']}ms"
    asked = ("run", "--space", "tiny.yaml", "--target-latency", target, "--slack", "10", "--confidence", "0.5")
    found = json.loads(invoke(*asked, "--out", "r", "--json").out)
    assert found["feasible"] is True
    assert found["best"]["origin"] == "block_search"
    assert found["best"]["latency_ms"] == pytest.approx(bounds["fastest_ms"])


def test_a_run_with_a_device_file_is_compared_wherever_it_is(invoke: Invoke, tmp_path: Path) -> None:
    profile = {"format": "mnv3search.device", "version": 1, "kind": "roofline", "name": "board", "gmadds_per_s": 10,
               "gbytes_per_s": 5}  # fmt: skip
    (tmp_path / "board.json").write_text(json.dumps(profile))
    out = ("netadapt", "mobilenet_v3_small", "--target-latency", "0.95x", "--device", "board.json", "--out", "n")
    assert invoke(*out, "--json").code == 0
    (tmp_path / "board.json").unlink()
    (tmp_path / "n").rename(tmp_path / "móved n")
    assert invoke("netadapt", "--resume", "móved n", "--json").code == 0
    assert json.loads(invoke("compare", "móved n", "--json").out)["device"] == "board"


def test_a_run_that_another_process_works_on_is_left_alone(invoke: Invoke, tmp_path: Path) -> None:
    invoke("netadapt", "mobilenet_v3_small", "--target-latency", "0.95x", "--out", "n", "--json")
    before = {p.name: p.read_bytes() for p in (tmp_path / "n").iterdir()}
    with locked(tmp_path / "n"):
        outcome = invoke("netadapt", "--resume", "n")
    assert outcome.code == 2
    assert "another process" in outcome.err
    assert {p.name: p.read_bytes() for p in (tmp_path / "n").iterdir()} == before


def test_a_target_that_never_binds_is_said(invoke: Invoke) -> None:
    found = json.loads(
        invoke(
            "search", "--space", "mnv3_small", "--target-latency", "5s", "--trials", "50", "--out", "s", "--json"
        ).out
    )
    assert any("never binds" in note for note in found["notes"])


def test_a_confidence_of_one_half_aims_at_the_prediction_itself(invoke: Invoke) -> None:
    asked = ("search", "--space", "mnv3_small", "--target-latency", "0.9x", "--trials", "300", "--json")
    sure = json.loads(invoke(*asked, "--out", "a").out)
    even = json.loads(invoke(*asked, "--confidence", "0.5", "--out", "b").out)
    assert sure["best"]["latency_ms"] < even["best"]["latency_ms"] <= even["target_latency_ms"]
    assert sure["best"]["top1"] < even["best"]["top1"]
    assert not any("--confidence" in note for note in even["notes"])


def test_a_target_that_only_the_confidence_forbids_says_so(invoke: Invoke, tmp_path: Path) -> None:
    (tmp_path / "tiny.yaml").write_text(TINY)
    asked = ("search", "--space", "tiny.yaml", "--trials", "5", "--json", "--out", "r")
    fastest = json.loads(invoke(*asked, "--target-latency", "1us").out)["fastest_ms"]
    outcome = invoke(*asked, "--target-latency", f"{1.0001 * fastest}ms")
    assert outcome.code == 2
    assert "with the confidence asked for" in outcome.err
    assert "--confidence 0.5 or less makes it feasible" in outcome.err
    assert not (tmp_path / "r").exists()
    assert invoke(*asked, "--target-latency", f"{1.0001 * fastest}ms", "--confidence", "0.5").code == 0


def test_netadapt_beyond_what_the_confidence_allows_says_so(invoke: Invoke, tmp_path: Path) -> None:
    asked = ("netadapt", "mobilenet_v3_small", "--out", "n", "--json")
    fastest = json.loads(invoke(*asked, "--target-latency", "1us").out)["fastest_ms"]
    outcome = invoke(*asked, "--target-latency", f"{1.001 * fastest}ms")
    assert outcome.code == 2
    assert "with the confidence asked for" in outcome.err
    assert not (tmp_path / "n").exists()


@pytest.mark.parametrize("confidence", ["0.49", "1", "90", "nan"])
def test_a_confidence_that_is_none_is_refused(invoke: Invoke, tmp_path: Path, confidence: str) -> None:
    outcome = invoke(*RUN, "--confidence", confidence, "--out", "r")
    assert outcome.code == 2
    assert "confidence is" in outcome.err
    assert not (tmp_path / "r").exists()
