from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from search_fakes import CostlyEvaluator, EffectEvaluator, UnitLatency, small_space

from mnv3search.accuracy.evaluator import Capabilities
from mnv3search.accuracy.registry import load_evaluator
from mnv3search.block_search import SearchResult, search
from mnv3search.block_search.objective import Objective
from mnv3search.block_search.row_latency import RowLatency
from mnv3search.block_search.study import Outcome, ParameterCodec, StudyFile, StudyIdentity, finished_trials
from mnv3search.errors import RunError
from mnv3search.latency.devices import load_device
from mnv3search.space import load_space

if TYPE_CHECKING:
    from optuna import Study

OBJECTIVE = Objective(30.0)
SPACE = small_space("blocks")
LATENCIES = RowLatency(SPACE, UnitLatency())
IDENTITY = StudyIdentity.of(SPACE, LATENCIES, EffectEvaluator(), "evolution", 0, OBJECTIVE)


def _outcomes() -> list[Outcome]:
    rows = SPACE.canonical(np.random.default_rng(0).integers(0, 2, (3, len(SPACE.parameters))))
    return [
        Outcome(rows[0], "evaluated", 20.0, 70.0, 0.5, OBJECTIVE.values(70.0, 20.0)),
        Outcome(rows[1], "refused", 40.0, None, None, OBJECTIVE.values(70.0, 40.0)),
        Outcome(rows[2], "evaluated", 25.0, 71.0, None, OBJECTIVE.values(71.0, 25.0)),
    ]


def _opened(path: Path) -> contextlib.closing[StudyFile]:
    return contextlib.closing(StudyFile(path, SPACE, OBJECTIVE, IDENTITY, 9))


def _saved(path: Path, *, trials: bool = True) -> None:
    with _opened(path) as study_file:
        study_file.append(_outcomes() if trials else [])


def test_rows_and_optunas_parameters_round_trip() -> None:
    codec = ParameterCodec(SPACE)
    for row in SPACE.sample_indices(30, np.random.default_rng(1)):
        params = codec.params(row)
        assert (codec.rows([params])[0] == row).all()
        assert SPACE.decode(params) == SPACE.architecture(row)


@pytest.mark.parametrize("name", ["blocks", "widths", "stage choices", "large"])
def test_canonical_rows_come_back_from_the_parameters_that_they_use(name: str) -> None:
    space = small_space(name)
    codec = ParameterCodec(space)
    rows = space.sample_indices(60, np.random.default_rng(1))
    used = [codec.params(row, names) for row, names in zip(rows, codec.used_names(rows), strict=True)]
    assert (codec.rows(used) == rows).all()
    assert used == [space.encode(space.architecture(row)) for row in rows]


def test_parameters_of_another_space_are_refused() -> None:
    codec = ParameterCodec(SPACE)
    params = codec.params(SPACE.sample_indices(1, np.random.default_rng(1))[0])
    with pytest.raises(RunError, match=r"kernel_size = 9"):
        codec.rows([{**params, "stage1.block1.kernel_size": 9}])
    with pytest.raises(RunError, match="stage9"):
        codec.rows([{**params, "stage9.depth": 1}])


def test_a_trial_without_a_parameter_that_it_uses_is_damage() -> None:
    codec = ParameterCodec(SPACE)
    whole = codec.params(SPACE.sample_indices(1, np.random.default_rng(1))[0])
    short = {name: value for name, value in whole.items() if name != "stage1.block1.kernel_size"}
    with pytest.raises(RunError, match=r"trial 1 of the study lacks stage1\.block1\.kernel_size"):
        codec.rows([whole, short])


def test_a_file_that_holds_every_parameter_is_read_too(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    _saved(tmp_path / "study.log", trials=False)
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.log"))
    study = optuna.load_study(study_name=SPACE.name, storage=optuna.storages.JournalStorage(backend))
    codec = ParameterCodec(SPACE)
    for trial, outcome in zip(finished_trials(codec, OBJECTIVE, _outcomes()), _outcomes(), strict=True):
        trial.params, trial.distributions = codec.params(outcome.row), codec.distributions
        study.add_trial(trial)
    study_file = StudyFile(tmp_path / "study.log", SPACE, OBJECTIVE, IDENTITY, 9)
    assert [outcome.row.tolist() for outcome in study_file.outcomes()] == [o.row.tolist() for o in _outcomes()]
    study_file.close()


def test_the_file_holds_only_the_parameters_that_a_trial_uses(tmp_path: Path) -> None:
    space = small_space("large")
    rows = space.sample_indices(20, np.random.default_rng(0))
    outcomes = [Outcome(row, "evaluated", 20.0, 70.0, 0.5, (70.0,)) for row in rows]
    study_file = StudyFile(tmp_path / "study.log", space, OBJECTIVE, replace(IDENTITY, space=space.name), 9)
    study_file.append(outcomes)
    study_file.close()
    lines = [json.loads(line) for line in (tmp_path / "study.log").read_bytes().splitlines()]
    saved = [line for line in lines if "params" in line]
    for line, row in zip(saved, rows, strict=True):
        assert set(line["params"]) == set(line["distributions"]) == set(space.encode(space.architecture(row)))
    assert len({len(line["params"]) for line in saved}) > 1


@pytest.mark.parametrize("sampler", ["TPESampler", "NSGAIISampler", "RandomSampler"])
def test_optunas_samplers_go_on_from_the_file(tmp_path: Path, sampler: str) -> None:
    optuna = pytest.importorskip("optuna")
    search(SPACE, UnitLatency(), EffectEvaluator(), 1e6, 30, storage=tmp_path / "study.log")
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.log"))
    made = getattr(optuna.samplers, sampler)(seed=0)
    study = optuna.load_study(study_name=SPACE.name, storage=optuna.storages.JournalStorage(backend), sampler=made)
    codec = ParameterCodec(SPACE)
    for _ in range(3):
        trial = study.ask(codec.distributions)
        SPACE.decode(trial.params)
        study.tell(trial, 1.0)
    assert len(study.trials) == 33


def test_what_was_saved_is_read_back(tmp_path: Path) -> None:
    _saved(tmp_path / "study.log")
    study_file = StudyFile(tmp_path / "study.log", SPACE, OBJECTIVE, IDENTITY, 9)
    for found, saved in zip(study_file.outcomes(), _outcomes(), strict=True):
        assert (found.row == saved.row).all()
        assert (found.status, found.latency_ms, found.top1, found.top1_std, found.values) == (
            saved.status, saved.latency_ms, saved.top1, saved.top1_std, saved.values,
        )  # fmt: skip
    study_file.close()


def test_optuna_opens_the_file_by_itself(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    _saved(tmp_path / "study.log")
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.log"))
    study = optuna.load_study(study_name=SPACE.name, storage=optuna.storages.JournalStorage(backend))
    assert [trial.values for trial in study.trials] == [list(outcome.values) for outcome in _outcomes()]
    assert [trial.constraints["over_target_ms"] for trial in study.trials] == [-10.0, 10.0, -5.0]
    assert study.best_trial.number == 2  # the highest top-1 within the target
    assert study.best_trial.params == SPACE.encode(SPACE.architecture(_outcomes()[2].row))
    assert study.best_trial.distributions.items() <= ParameterCodec(SPACE).distributions.items()
    assert study.metric_names == ["top1"]


def test_the_dashboard_shows_the_study(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    dashboard = pytest.importorskip("optuna_dashboard")
    _saved(tmp_path / "study.log")
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "study.log"))
    app = dashboard.wsgi(optuna.storages.JournalStorage(backend))
    answered: list[str] = []
    environ = {
        "REQUEST_METHOD": "GET", "PATH_INFO": "/api/studies/0", "SERVER_NAME": "localhost", "SERVER_PORT": "80",
        "wsgi.url_scheme": "http", "wsgi.errors": sys.stderr, "QUERY_STRING": "after=0",
    }  # fmt: skip
    body = b"".join(app(environ, lambda status, *headers: answered.append(status)))
    assert answered == ["200 OK"]
    assert b"stage1.block1.kernel_size" in body
    assert b"constraints" in body


def test_an_evaluator_is_known_by_what_it_states_before_its_class() -> None:
    stated = EffectEvaluator()
    stated.capabilities = Capabilities(identity="prior")
    assert StudyIdentity.of(SPACE, LATENCIES, stated, "tpe", 0, OBJECTIVE).evaluator == "prior"
    assert StudyIdentity.of(SPACE, LATENCIES, EffectEvaluator(), "tpe", 0, OBJECTIVE).evaluator == "EffectEvaluator"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("evaluator", "Other"),
        ("seed", 1),
        ("target_latency_ms", 31.0),
        ("sampler", "tpe"),
        ("networks", "0"),
        ("device", "pixel2"),
    ],
)
def test_a_study_of_another_search_is_refused_by_name(tmp_path: Path, name: str, value: object) -> None:
    _saved(tmp_path / "study.log")
    before = (tmp_path / "study.log").read_bytes()
    with pytest.raises(RunError, match=name):
        StudyFile(tmp_path / "study.log", SPACE, OBJECTIVE, replace(IDENTITY, **{name: value}), 9)  # type: ignore[arg-type]
    assert (tmp_path / "study.log").read_bytes() == before
    StudyFile(tmp_path / "study.log", SPACE, OBJECTIVE, IDENTITY, 9).close()  # the lock was let go


@pytest.mark.parametrize(
    ("device", "evaluator", "word"),
    [("pixel2", "zero_cost:madds", "device"), ("pixel1", "zero_cost:parameters", "evaluator"),
     ("pixel1", "prior", "evaluator")],
)  # fmt: skip
def test_a_study_of_another_device_or_evaluator_is_refused(
    tmp_path: Path, device: str, evaluator: str, word: str
) -> None:
    space = load_space("mnv3_small")

    def some(device: str, evaluator: str) -> float:
        found = search(
            space, load_device(device), load_evaluator(evaluator), 20.0, 4, sampler="random",
            storage=tmp_path / "study.log",
        )  # fmt: skip
        return found.best.latency_ms

    first = some("pixel1", "zero_cost:madds")
    with pytest.raises(RunError, match=f"a search with {word} = "):
        some(device, evaluator)
    assert some("pixel1", "zero_cost:madds") == first


def test_a_longer_search_begins_as_the_shorter_one_did(tmp_path: Path) -> None:
    short = search(SPACE, UnitLatency(), CostlyEvaluator(), 1e6, 20, storage=tmp_path / "study.log")
    more = CostlyEvaluator()
    longer = search(SPACE, UnitLatency(), more, 1e6, 30, storage=tmp_path / "study.log")
    assert longer.candidates[:20] == short.candidates
    assert len(more.seen) == 10
    assert longer.duplicates == 0


def test_a_study_of_another_space_or_program_is_refused(tmp_path: Path) -> None:
    optuna = pytest.importorskip("optuna")
    _saved(tmp_path / "study.log")
    with pytest.raises(RunError, match="study of blocks"):
        search(small_space("widths"), UnitLatency(), EffectEvaluator(), 1e6, storage=tmp_path / "study.log")
    backend = optuna.storages.journal.JournalFileBackend(str(tmp_path / "other.log"))
    foreign = optuna.create_study(storage=optuna.storages.JournalStorage(backend), study_name=SPACE.name)
    foreign.add_trial(optuna.trial.create_trial(value=1.0))
    with pytest.raises(RunError, match="another program"):
        StudyFile(tmp_path / "other.log", SPACE, OBJECTIVE, IDENTITY, 9)


DEEP = "[" * 100_000
HUGE = "1" + "0" * 400


@pytest.mark.parametrize(
    ("old", "new", "rule"),
    [
        ('"top1":71.0', '"top1":NaN', "NaN"),
        ('"top1":71.0', '"top1":-1', "top1 is -1; it must be from 0 to 100"),
        ('"top1":71.0', '"top1":1e308', "top1"),
        ('"top1":71.0', '"top1":"71"', "top1"),
        ('"top1":71.0', f'"top1":{HUGE}', "line 6"),
        ('"top1":71.0', f'"top1":{DEEP}', "line 6"),
        ('"top1":71.0', '"other":71.0', "top1 is missing"),
        ('"latency_ms":25.0', '"latency_ms":0', "latency_ms is 0"),
        ('"latency_ms":25.0', '"latency_ms":31', "limit is 30 ms"),
        ('"latency_ms":25.0', '"latency_ms":[1]', "latency_ms"),
        ('"status":"evaluated"', '"status":"won"', "status is 'won'"),
        ('"status":"evaluated"', '"status":{}', "status"),
        ('"params":{', '"params":[{', "line 6"),
        ('"params":{', '"params":{"stage1.depth":9,', "line 6"),
        ('"state":1', '"state":"done"', "state"),
        ('"user_attrs":{', '"user_attrs":7,"others":{', "line 6"),
    ],
)
def test_a_trial_that_cannot_be_is_one_line(tmp_path: Path, old: str, new: str, rule: str) -> None:
    _saved(tmp_path / "study.log")
    lines = (tmp_path / "study.log").read_text().splitlines(keepends=True)
    at = max(i for i, line in enumerate(lines) if '"params"' in line)
    assert old in lines[at]
    lines[at] = lines[at].replace(old, new, 1)
    (tmp_path / "study.log").write_text("".join(lines))
    with pytest.raises(RunError) as caught, _opened(tmp_path / "study.log") as study_file:
        study_file.outcomes()
    message = str(caught.value)
    assert "\n" not in message
    assert f"line {at + 1}" in message
    assert rule.replace("line 6", f"line {at + 1}") in message
    assert "restore it or start another" in message


def test_entries_that_make_no_sense_are_damage(tmp_path: Path) -> None:
    (tmp_path / "study.log").write_bytes(b'{"op_code":99,"worker_id":"w"}\n')
    with pytest.raises(RunError, match="damaged"):
        StudyFile(tmp_path / "study.log", SPACE, OBJECTIVE, IDENTITY, 9)


def _asked(path: Path, trials: int, **options: object) -> tuple[SearchResult, CostlyEvaluator]:
    evaluator = CostlyEvaluator()
    space, limit = small_space("large"), 24.0
    found = search(space, UnitLatency(), evaluator, limit, trials, sampler="tpe", storage=path, **options)  # type: ignore[arg-type]
    return found, evaluator


def _loaded(path: Path) -> Study:
    optuna = pytest.importorskip("optuna")
    backend = optuna.storages.journal.JournalFileBackend(str(path))
    name, storage = small_space("large").name, optuna.storages.JournalStorage(backend)
    study: Study = optuna.load_study(study_name=name, storage=storage)
    return study


def test_optunas_samplers_ask_the_study_on_disk_itself(tmp_path: Path) -> None:
    found, evaluator = _asked(tmp_path / "study.log", 12)
    trials = [trial for trial in _loaded(tmp_path / "study.log").trials if trial.user_attrs["status"] == "evaluated"]
    assert [trial.user_attrs["architecture"] for trial in trials] == [str(a) for a in evaluator.seen]
    assert [trial.number for trial in trials] == [candidate.number for candidate in found.candidates]
    assert [trial.values for trial in trials] == [[candidate.top1] for candidate in found.candidates]
    assert all(trial.constraints["over_target_ms"] <= 0 for trial in trials)
    assert all(set(trial.params) == set(ParameterCodec(small_space("large")).distributions) for trial in trials)
    again, nothing = _asked(tmp_path / "study.log", 12)
    assert (again.candidates, nothing.seen) == (found.candidates, [])


def test_a_file_in_memory_and_on_disk_give_the_same_search(tmp_path: Path) -> None:
    assert _asked(tmp_path / "study.log", 20)[0].candidates == search(
        small_space("large"), UnitLatency(), CostlyEvaluator(), 24.0, 20, sampler="tpe"
    ).candidates  # fmt: skip


def test_a_kill_within_a_trial_loses_that_trial_alone(tmp_path: Path) -> None:
    path = tmp_path / "study.log"
    found, _ = _asked(path, 6)
    lines = path.read_bytes().splitlines(keepends=True)
    ends = [i for i, line in enumerate(lines) if line.startswith(b'{"op_code":6')]
    path.write_bytes(b"".join(lines[: ends[-1] - 3]) + lines[ends[-1] - 3][:20])
    longer, evaluator = _asked(path, 8)
    assert longer.candidates[:5] == found.candidates[:5]
    assert (longer.evaluated, len(evaluator.seen)) == (8, 3)
    states = [trial.state.name for trial in _loaded(path).trials]
    assert (states.count("FAIL"), states.count("RUNNING")) == (1, 0)


def test_a_study_of_whole_trials_goes_on_under_ask_and_tell(tmp_path: Path) -> None:
    """As every study was before: trials hold only the parameters that they use."""
    space, objective = small_space("large"), Objective(24.0)
    rows = space.sample_indices(400, np.random.default_rng(0))
    ms = RowLatency(space, UnitLatency()).of_rows(rows)
    kept = [i for i in range(len(rows)) if ms[i] <= 24.0][:9]
    outcomes = [Outcome(rows[i], "evaluated", float(ms[i]), 60.0 + i / 100, 0.5, (60.0 + i / 100,)) for i in kept]
    identity = StudyIdentity.of(
        space, RowLatency(space, UnitLatency()), CostlyEvaluator(), "tpe", 0, objective
    )  # fmt: skip
    with contextlib.closing(StudyFile(tmp_path / "study.log", space, objective, identity, 12)) as whole:
        whole.append(outcomes)
    with contextlib.closing(StudyFile(tmp_path / "study.log", space, objective, identity, 12, asked=True)) as asked:
        codec = asked.codec
        assert [trial.params for trial in asked.study.trials] == [codec.params(o.row) for o in outcomes]
    found, evaluator = _asked(tmp_path / "study.log", 12)
    assert [candidate.top1 for candidate in found.candidates[:9]] == [outcome.top1 for outcome in outcomes]
    assert (found.evaluated, len(evaluator.seen)) == (12, 3)


@pytest.mark.parametrize(
    ("name", "digest"),
    [
        ("mnasnet", "12d1d5c782a2953a"),
        ("mnasnet_anb", "d78a90881e4b6ef5"),
        ("mnv2", "daf574c3285cd15d"),
        ("mnv3_large", "c35399deaddce6ab"),
        ("mnv3_small", "9b9e73e3a9265a16"),
        ("mnv3_small_32", "253d097e2d044fe8"),
        ("ofa_mbv3", "a9dbb6f015cf020a"),
    ],
)
def test_studies_of_spaces_from_before_there_were_kinds_of_blocks_are_known(name: str, digest: str) -> None:
    space = load_space(name)
    latencies = RowLatency(space, load_device("pixel1"))
    assert StudyIdentity.of(space, latencies, EffectEvaluator(), "tpe", 0, OBJECTIVE).networks == digest
