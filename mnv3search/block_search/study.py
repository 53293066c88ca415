"""The study on disk: outcomes of trials in Optuna's journal, read back when a search resumes.

:class:`StudyIdentity` holds what must agree for a saved study to be continued.
"""

from __future__ import annotations

import contextlib
import datetime
import functools
import hashlib
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from mnv3search.accuracy.evaluator import Report, capabilities_of
from mnv3search.block_search.journal import (
    CREATE_TRIAL,
    SET_PARAM,
    SET_USER_ATTR,
    Log,
    StudyJournal,
    open_journal,
    without_params,
)
from mnv3search.block_search.objective import Objective
from mnv3search.block_search.row_latency import RowLatency, Rows
from mnv3search.errors import RunError
from mnv3search.reading import parse_json
from mnv3search.records import LATENCY_MS, MAX_EPOCH, SCORE, TOP1, UNREADABLE, Record

if TYPE_CHECKING:
    from optuna import Study
    from optuna.distributions import BaseDistribution
    from optuna.trial import FrozenTrial, Trial

    from mnv3search.space import SearchSpace


@dataclass(frozen=True, slots=True)
class StudyIdentity:
    """What must agree for a study to be continued."""

    space: str
    networks: str
    evaluator: str
    device: str
    sampler: str
    seed: int
    target_latency_ms: float
    objectives: int
    reward_exponent: float
    hard: bool

    @classmethod
    def of(
        cls, space: SearchSpace, latencies: RowLatency, evaluator: object, sampler: str, seed: int, objective: Objective
    ) -> StudyIdentity:
        """The identity of one search, with a digest of all that makes the space's networks."""
        return cls(
            space=space.name,
            networks=hashlib.sha256(networks_text(space).encode()).hexdigest()[:16],
            evaluator=capabilities_of(evaluator).identity,
            device=latencies.identity,
            sampler=sampler,
            seed=seed,
            target_latency_ms=objective.target_latency_ms,
            objectives=objective.objectives,
            reward_exponent=objective.reward_exponent,
            hard=objective.hard,
        )


CONSTRAINT = "over_target_ms"
IDENTITY = "mnv3search"
PLANNED = "planned_trials"
_RUNNING, _ENDED, _WAITING = 0, (1, 2), 4  # Optuna's states; ended are COMPLETE and PRUNED

Status = Literal["evaluated", "stopped", "duplicate", "refused"]
STATUSES: tuple[Status, ...] = get_args(Status)


def networks_text(space: SearchSpace) -> str:
    """All that makes the networks of ``space``, as studies have spelled it since there was one kind of block."""
    text = repr(space.skeleton)
    for block in {stage.block for stage in space.skeleton.stages if stage.block.kind == "inverted_residual"}:
        settings = {"expansion": "where_needed", "shortcut": "identity"} | dict(block.settings)
        fields = {**dict(block.lists), "options": block.options, **settings}
        before = ", ".join(f"{name}={value!r}" for name, value in fields.items())
        text = text.replace(repr(block), f"BlockChoices({before})")
    return text


@dataclass(frozen=True, slots=True, eq=False)
class Outcome:
    """One finished trial: a row of the space that a sampler asked for.

    Attributes:
        row: canonical indices, shape (P,).
        status: ``evaluated``; ``stopped`` while it was trained; ``duplicate`` of a network asked before; ``refused``
            by its latency.
        latency_ms: by the search's latency model.
        top1, top1_std: percent; None where refused; where stopped what was reached until then.
        values: Optuna's values; a refused row carries the worst top-1 seen so far.
        notes: further values that the study keeps.
        reports: of a training, epoch by epoch.
        pruned: ``top1`` is that of a training that was stopped: of this row, or of the one that it repeats.
    """

    row: Rows
    status: Status
    latency_ms: float
    top1: float | None
    top1_std: float | None
    values: tuple[float, ...]
    notes: Mapping[str, Any] = field(default_factory=dict)
    reports: tuple[Report, ...] = ()
    pruned: bool = False


@contextlib.contextmanager
def quiet_optuna() -> Iterator[None]:
    """Optuna without its messages on new studies, experimental features and samplers that fall back."""
    import optuna

    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(verbosity)


class ParameterCodec:
    """Between index rows and Optuna's categorical parameters; a parameter with one choice is no parameter there.

    A parameter of a block past the depth is conditional: it may be absent, and its column is then 0, as in every
    canonical row.
    """

    def __init__(self, space: SearchSpace) -> None:
        from optuna.distributions import CategoricalDistribution

        self._tables = space.tables
        self.size = len(space.parameters)
        self._searched = np.array([len(parameter.choices) > 1 for parameter in space.parameters])
        searched = {p.name: (column, p) for column, p in enumerate(space.parameters) if len(p.choices) > 1}
        self._columns = {name: column for name, (column, _) in searched.items()}
        self._labels = {name: tuple(map(_label, p.choices)) for name, (_, p) in searched.items()}
        self.distributions: dict[str, BaseDistribution] = {
            name: CategoricalDistribution(labels) for name, labels in self._labels.items()
        }

    @functools.cached_property
    def distribution_texts(self) -> dict[str, str]:
        """The distributions as a journal holds them."""
        from optuna.distributions import distribution_to_json

        return {name: distribution_to_json(found) for name, found in self.distributions.items()}

    def params(self, row: Sequence[int] | Rows, names: Iterable[str] | None = None) -> dict[str, Any]:
        """Optuna's parameters of an index row: all, or those of ``names``."""
        names = self._columns if names is None else names
        return {name: self._labels[name][int(row[self._columns[name]])] for name in names}

    def used_names(self, rows: Rows) -> list[list[str]]:
        """For each of ``rows`` (n, P) the names of the parameters that matter in it."""
        used = self._tables.used(rows)
        return [[name for name, column in self._columns.items() if line[column]] for line in used.tolist()]

    def rows(self, trials: Sequence[Mapping[str, Any]]) -> Rows:
        """The index rows (n, P) of Optuna's parameters, one mapping a trial; RunError where they are damaged."""
        return self.filled(np.stack([self.part(params) for params in trials]))

    def part(self, params: Mapping[str, Any]) -> Rows:
        """An index row of Optuna's parameters, -1 where there is none; shape (P,)."""
        row: Rows = np.full(self.size, -1, dtype=np.int16)
        for name, value in params.items():
            labels = self._labels.get(name, ())
            if value not in labels:
                raise RunError(f"a trial of the study has {name} = {value!r}; the space offers {labels}")
            row[self._columns[name]] = labels.index(value)
        return row

    def filled(self, parts: Rows) -> Rows:
        """Rows (n, P) with 0 where :meth:`part` gave -1."""
        rows = np.maximum(parts, 0).astype(np.int64)
        missing = (parts < 0) & self._tables.used(rows) & self._searched
        if missing.any():
            number, column = map(int, np.argwhere(missing)[0])
            name = next(name for name, at in self._columns.items() if at == column)
            raise RunError(f"trial {number} of the study lacks {name}: the study is damaged; start another")
        return rows


def user_attrs(outcome: Outcome) -> dict[str, Any]:
    """What a trial of the study keeps of its outcome."""
    known: dict[str, Any] = {"status": outcome.status, "latency_ms": outcome.latency_ms}
    if outcome.top1 is not None:
        known |= {"top1": outcome.top1, "top1_std": outcome.top1_std}
    if outcome.pruned:
        known["pruned"] = True
    if outcome.reports:
        known["reports"] = [list(report) for report in outcome.reports]
    return {**known, **outcome.notes}


def finished_trials(codec: ParameterCodec, objective: Objective, outcomes: Sequence[Outcome]) -> list[FrozenTrial]:
    """Outcomes as Optuna's finished trials, with the latency constraint and the parameters that each uses."""
    if not outcomes:
        return []
    named = codec.used_names(np.stack([outcome.row for outcome in outcomes]))
    return [_finished(codec, objective, outcome, names) for outcome, names in zip(outcomes, named, strict=True)]


def _finished(codec: ParameterCodec, objective: Objective, outcome: Outcome, names: Sequence[str]) -> FrozenTrial:
    from optuna.trial import FrozenTrial, TrialState

    now = datetime.datetime.now()
    pruned = outcome.pruned and objective.objectives == 1  # Optuna prunes with one objective only
    # Built directly: create_trial compares and copies every distribution, which halves the rate of saving.
    trial = FrozenTrial(
        number=-1,
        trial_id=-1,
        state=TrialState.PRUNED if pruned else TrialState.COMPLETE,
        value=None,
        values=None if pruned else list(outcome.values),
        datetime_start=now,
        datetime_complete=now,
        params=codec.params(outcome.row, names),
        distributions={name: codec.distributions[name] for name in names},
        user_attrs=user_attrs(outcome),
        system_attrs={},
        intermediate_values=intermediate_values(objective, outcome),
    )
    if objective.hard:
        trial.set_constraint(CONSTRAINT, objective.excess_ms(outcome.latency_ms))
    return trial


def intermediate_values(objective: Objective, outcome: Outcome) -> dict[int, float]:
    """Optuna's value of a training after each epoch; with two objectives it knows none."""
    if objective.objectives == 2:
        return {}
    return {epoch: objective.values(top1, outcome.latency_ms)[0] for epoch, top1 in outcome.reports}


class StudyStorage:
    """The trials of one search as an Optuna study, in memory.

    Attributes:
        study: Optuna's.
        planned: how many networks the search is to evaluate; of a search that goes on, its first session.
    """

    def __init__(self, space: SearchSpace, objective: Objective, trials: int) -> None:
        self.planned = trials
        self.codec = ParameterCodec(space)
        self._objective = objective
        self.study = self._made(space.name)

    def _made(self, name: str) -> Study:
        import optuna

        with quiet_optuna():
            return optuna.create_study(study_name=name, directions=list(self._objective.directions))

    def outcomes(self) -> list[Outcome]:
        """Every trial that an earlier session finished, in order."""
        return []

    def append(self, outcomes: Sequence[Outcome], trial: Trial | None = None) -> None:
        """Keep ``outcomes`` as finished trials; ``trial`` is the one that the study was asked for, where it was."""
        with quiet_optuna():
            if trial is None:
                self.study.add_trials(finished_trials(self.codec, self._objective, outcomes))
            else:
                for outcome in outcomes:
                    self._finish(trial, outcome)

    def _finish(self, trial: Trial, outcome: Outcome) -> None:
        from optuna.trial import TrialState

        for name, value in user_attrs(outcome).items():
            trial.set_user_attr(name, value)
        if self._objective.hard:
            trial.set_constraint(CONSTRAINT, self._objective.excess_ms(outcome.latency_ms))
        for epoch, value in intermediate_values(self._objective, outcome).items():
            trial.report(value, epoch)
        if outcome.pruned and self._objective.objectives == 1:  # Optuna prunes with one objective only
            self.study.tell(trial, state=TrialState.PRUNED)
        else:
            self.study.tell(trial, list(outcome.values))


class StudyFile(StudyStorage):
    """A study in a journal file, which ``optuna-dashboard`` opens."""

    def __init__(
        self, path: Path, space: SearchSpace, objective: Objective, identity: StudyIdentity, trials: int,
        *, asked: bool = False,
    ) -> None:  # fmt: skip
        """``asked``: Optuna's samplers ask it, and are handed all parameters of every trial."""
        self._path, self._identity, self._space = path, identity, space
        self._saved: list[Outcome] = []
        self._damage: str | None = None
        self._worst: float | None = None
        self._created = 0
        self._begun: dict[int, dict[str, dict[str, Any]]] = {}
        handed = self._completed if asked else without_params
        # what is read is taken apart with the codec and the objective, so they come first
        self.codec, self._objective = ParameterCodec(space), objective
        self._journal: StudyJournal = open_journal(path, self._take, handed)
        try:
            super().__init__(space, objective, trials)
            self._fail_begun()
        except BaseException:
            self._journal.close()
            raise

    def outcomes(self) -> list[Outcome]:
        """As :class:`StudyStorage`."""
        if self._damage is not None:
            raise RunError(f"{self._damage}; restore it or start another")
        saved, self._saved = self._saved, []
        if not saved:
            return []
        # a sampler asks for all parameters, those that the row does not use among them
        rows = self._space.canonical(self.codec.filled(np.stack([outcome.row for outcome in saved])))
        return [replace(outcome, row=row) for row, outcome in zip(rows, saved, strict=True)]

    def append(self, outcomes: Sequence[Outcome], trial: Trial | None = None) -> None:
        """As :class:`StudyStorage`; on disk when this returns, by one write."""
        super().append(outcomes, trial)
        self._journal.flush()

    def close(self) -> None:
        """Let go of the file."""
        self._journal.close()

    def _completed(self, log: Log) -> Log:
        """A whole trial of the journal with the parameters that it does not use: samplers relate them to each other."""
        params = log.get("params")
        if not isinstance(params, dict) or log.get("state") not in _ENDED:
            return log
        known = {name: params.get(name, 0) for name in self.codec.distributions}
        return {**log, "params": known, "distributions": self.codec.distribution_texts}

    def _fail_begun(self) -> None:
        """Give up trials that were asked for and of which a kill left no end."""
        from optuna.trial import TrialState

        if self._begun:
            for trial in self.study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
                self.study.tell(trial.number, state=TrialState.FAIL)

    def _take(self, log: Record, number: int) -> None:
        """Keep a saved trial; damage is raised once the study is known to be this search's."""
        try:
            if self._damage is None and (trial := self._ended(log)) is not None:
                self._saved.append(self._outcome(trial))
        except UNREADABLE as error:
            self._damage = f"{self._path}, line {number}: {error}: the study is damaged"

    def _ended(self, log: Record) -> Record | None:
        """The trial that ``log`` ends, by itself or with lines before it; None where it ends none."""
        operation = log.integer("op_code", 0, 100)
        if operation == CREATE_TRIAL:
            number, self._created = self._created, self._created + 1
            if "state" in log and log.integer("state", 0, 4) in _ENDED:
                return log
            self._begun[number] = {"params": {}, "distributions": {}, "user_attrs": {}}
            return None
        number = log.integer("trial_id", 0, 10**9)
        begun = self._begun.get(number)
        if begun is None:
            return None
        if operation == SET_PARAM:
            begun["params"][log.text("param_name")] = log.value("param_value_internal")
            begun["distributions"][log.text("param_name")] = log.value("distribution")
        elif operation == SET_USER_ATTR:
            attributes = log.record("user_attr")
            begun["user_attrs"] |= {name: attributes.value(name) for name in attributes.names()}
        elif (state := log.integer("state", 0, 4)) not in {_RUNNING, _WAITING}:
            del self._begun[number]
            return Record(begun) if state in _ENDED else None
        return None

    def _outcome(self, log: Record) -> Outcome:
        objective, notes = self._objective, log.record("user_attrs")
        status = notes.text("status")
        if status not in STATUSES:
            raise ValueError(f"status is {status!r}; it must be one of {', '.join(STATUSES)}")
        ms = notes.number("latency_ms", *LATENCY_MS)
        if (status != "refused") is not (ms <= objective.limit_ms):
            raise ValueError(f"a trial of {ms:g} ms is {status}, where the limit is {objective.limit_ms:g} ms")
        allowed = SCORE if objective.score else TOP1
        if status == "refused":
            top1, std, values = None, None, objective.values(self._worst or 0.0, ms)
        else:
            top1 = notes.number("top1", *allowed)
            std = notes.optional("top1_std", 0.0, SCORE[1])
            values = objective.values(top1, ms)
            if status == "evaluated":
                self._worst = top1 if self._worst is None else min(top1, self._worst)
        reports = _reports(notes.list("reports"), allowed) if "reports" in notes else ()
        pruned = status == "stopped" or ("pruned" in notes and notes.value("pruned") is True)
        row = self.codec.part(_params(log))
        return Outcome(row, status, ms, top1, std, values, reports=reports, pruned=pruned)

    def _made(self, name: str) -> Study:
        import optuna

        path = self._path
        with quiet_optuna():
            try:
                storage = optuna.storages.JournalStorage(self._journal.backend())
                names = optuna.get_all_study_names(storage)
                if names and name not in names:
                    raise RunError(f"{path} holds a study of {names[0]}, not of {name}; give another path")
                study = optuna.create_study(
                    storage=storage, study_name=name, directions=list(self._objective.directions), load_if_exists=True
                )
                self._check(study)
            except RunError:
                raise
            except (*UNREADABLE, AssertionError) as error:
                where = self._damage or f"{path} is damaged ({error!r})"
                raise RunError(f"{where}; restore it or start another") from error
        self._journal.flush()
        return study

    def _check(self, study: Study) -> None:
        """Whether ``study`` is this search's; a new one becomes it."""
        path, saved, wanted = self._path, study.user_attrs.get(IDENTITY), asdict(self._identity)
        if saved is None:
            if study.get_trials(deepcopy=False):
                raise RunError(f"{path} holds a study that another program made; give another path")
            study.set_user_attr(IDENTITY, wanted)
            study.set_user_attr(PLANNED, self.planned)
            study.set_metric_names(list(self._objective.metrics))
            return
        for name, value in wanted.items():
            if saved.get(name) != value:
                raise RunError(
                    f"{path} holds a search with {name} = {saved.get(name)!r}, not {value!r}; "
                    f"give the same {name} to continue it, or another path"
                )
        planned = study.user_attrs.get(PLANNED)
        if isinstance(planned, bool) or not isinstance(planned, int) or planned < 1:
            raise RunError(f"{path} holds a search of {planned!r} trials: the study is damaged; start another")
        self.planned = planned


def _params(log: Record) -> dict[str, Any]:
    """Optuna's parameters of a line of the journal, which holds their distributions and indices into these choices."""
    params, distributions = log.record("params"), log.record("distributions")
    choices = {name: _choices(distributions.text(name)) for name in params.names()}
    return {name: listed[params.integer(name, 0, len(listed) - 1)] for name, listed in choices.items()}


@functools.lru_cache(maxsize=4096)
def _choices(text: str) -> tuple[Any, ...]:
    content = Record(parse_json(text))
    return tuple((content.record("attributes") if "attributes" in content else content).list("choices"))


def _reports(listed: list[Any], allowed: tuple[float, float]) -> tuple[Report, ...]:
    records = [Record({"epoch": epoch, "top1": top1}) for epoch, top1 in listed]
    return tuple((record.integer("epoch", 1, MAX_EPOCH), record.number("top1", *allowed)) for record in records)


def _label(choice: object) -> str | int | float | bool | None:
    """A choice as Optuna keeps it: plain values as they are, anything else as its text."""
    return choice if choice is None or isinstance(choice, (str, int, float, bool)) else str(choice)
