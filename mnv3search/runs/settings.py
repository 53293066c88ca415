"""What a run was asked: every choice that its result depends on, kept in the manifest so that it can continue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal, get_args

from mnv3search.block_search.samplers import SAMPLERS
from mnv3search.block_search.stopping import PRUNERS
from mnv3search.errors import RunError, UnknownNameError
from mnv3search.latency.confidence import LEAST_CONFIDENCE
from mnv3search.layer_search import NetAdaptOptions
from mnv3search.manifest import Settings

RunKind = Literal["run", "search", "netadapt"]
MAX_TRIALS = 10_000_000
MAX_FINALISTS = 100


@dataclass(frozen=True, slots=True)
class RunSettings(Settings):
    """The question of one run.

    Attributes:
        kind: ``run`` (block search, then NetAdapt), ``search`` or ``netadapt``.
        subject: the space's name or path, or NetAdapt's network; a copy of it stands in the folder.
        target: as written, such as ``50ms`` or ``0.8x``.
        device, evaluator: by name, the evaluator with its options.
        trials, seed, sampler, objectives, reward_exponent: of the block search.
        soft: the block search maximises the reward, which trades accuracy for latency about the target, in place of
            top-1 within it.
        slack: block search aims at (1 + slack) · target.
        finalists: how many networks NetAdapt takes down to the target.
        step_fraction, decay, selection: NetAdapt's.
        confidence: a network is within the target where its latency and so many of its deviations are (see
            :func:`~mnv3search.latency.confidence.z_of`); 0.5 aims at the latency itself.
        data: where the evaluator's images are, as ``open_data`` takes it; None where it needs none. The networks take
            the images' number of classes, whatever the space or the subject says.
        pruner: when a network that is trained to be judged is given up.

    Raises:
        RunError: a value out of its range, or steps of NetAdapt that cannot sum to the slack.
        UnknownNameError: no such sampler or pruner.
        Mnv3SearchError: a NetAdapt option out of its range.
    """

    # a run that was made before there was a confidence aimed at the latency itself
    OLDER: ClassVar[Mapping[str, object]] = {"confidence": LEAST_CONFIDENCE}

    kind: RunKind
    subject: str
    target: str
    device: str
    evaluator: str
    trials: int = 5_000
    seed: int = 0
    sampler: str = "auto"
    objectives: Literal[1, 2] = 1
    reward_exponent: float = -0.07
    soft: bool = False
    slack: float = 0.10
    finalists: int = 3
    step_fraction: float = 0.01
    decay: float = 1.0
    selection: Literal["ratio", "accuracy"] = "ratio"
    confidence: float = 0.9
    data: str | None = None
    pruner: str = "auto"

    def __post_init__(self) -> None:
        if self.kind not in get_args(RunKind):
            raise RunError(f"kind is {self.kind!r}; it must be one of {', '.join(get_args(RunKind))}")
        _check_range("trials", self.trials, 1, MAX_TRIALS)
        _check_range("seed", self.seed, 0, 2**32 - 1)
        _check_range("objectives", self.objectives, 1, 2)
        _check_range("slack", self.slack, 0, 10)
        _check_range("finalists", self.finalists, 0, MAX_FINALISTS)
        _check_range("reward exponent", self.reward_exponent, -10, 0)
        if not LEAST_CONFIDENCE <= self.confidence < 1:
            raise RunError(f"confidence is {self.confidence!r}; it must be at least 0.5 and below 1, such as 0.9")
        if self.sampler not in SAMPLERS:
            raise UnknownNameError("sampler", self.sampler, SAMPLERS)
        if self.pruner not in PRUNERS:
            raise UnknownNameError("pruner", self.pruner, PRUNERS)
        options = self.netadapt_options()
        if self.kind == "run" and self.finalists > 0:
            _check_reach(options, self.slack)

    def netadapt_options(self) -> NetAdaptOptions:
        """How NetAdapt steps in this run."""
        return NetAdaptOptions(self.step_fraction, self.decay, self.selection)


def _check_reach(options: NetAdaptOptions, slack: float) -> None:
    """Said before the block search: NetAdapt would say it only after."""
    share = slack / (1 + slack)
    if options.reach < share:
        raise RunError(
            f"steps of {options.step_fraction:g} with decay {options.decay:g} sum to {options.reach:.3g} of a "
            f"network's latency, but slack {slack:g} asks for {share:.3g}; raise the step or the decay, "
            "or lower the slack"
        )


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise RunError(f"{name} is {value!r}; it must be from {low:.12g} to {high:.12g}")
