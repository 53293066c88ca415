"""What a run or a pruning was asked: every choice that its result depends on, kept so that it can continue."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from mnv3search.block_search.samplers import SAMPLERS
from mnv3search.block_search.stopping import PRUNERS
from mnv3search.errors import RunError, UnknownNameError
from mnv3search.latency.confidence import LEAST_CONFIDENCE, z_of
from mnv3search.latency.model import parse_target
from mnv3search.layer_search import NetAdaptOptions
from mnv3search.layer_search.netadapt import SelectionRule
from mnv3search.layer_search.scoring import ShortTerm
from mnv3search.manifest import Settings
from mnv3search.training.recipe import Recipe, load_recipe, recipe_names
from typing import ClassVar, Literal, get_args

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


Finish = Literal["long", "scratch", "none"]
Rule = Literal["l2", "first", "norm_scale"]
SMALL = 64  # pixels; the side up to which images are trained on as small ones
MAX_EPOCHS = 100_000


@dataclass(frozen=True, slots=True)
class PruningSettings(Settings):
    """The question of one pruning.

    Attributes:
        run: the trained network, as written; a copy of it stands in the folder. With ``weights`` a published network.
        data: folder, archive or data set, as :func:`~mnv3search.training.data.open_data.open_data` takes it.
        target: as written, such as ``0.6x`` or ``3ms``.
        device: by name.
        step_fraction, decay, selection: δ, its factor from step to step, and what wins (:class:`NetAdaptOptions`).
        short_steps, short_batch, short_rate: T, batch size and learning rate of every proposal's fine-tune.
        images: training images that these draw from; None for all but the held-out ones.
        held_out: share of the training images that proposals are judged on, and not trained on in their fine-tunes.
        rule: which channels a narrowing keeps.
        finish: a long fine-tune, a training from scratch, or none.
        recipe, epochs: of that; None for what suits the image size.
        seed: of everything random.
        beside: trained networks to hold the result against in the picture, such as width multipliers.
        weights: file with the weights of ``run``, where that was trained elsewhere.
        fit_recipe: whether a shipped recipe of the end is fitted to the number of images; before, it was not.
        confidence: the result counts as within the target with this confidence, by its latency's error.

    Raises:
        RunError: a value out of its range.
        TargetError: a target that cannot be read, or a confidence that is not from 0.5 to below 1.
        Mnv3SearchError: an option of NetAdapt or of the fine-tune out of its range.
    """

    OLDER: ClassVar[Mapping[str, object]] = {"fit_recipe": False}

    run: str
    data: str
    target: str
    device: str
    step_fraction: float = 0.025
    decay: float = 1.0
    selection: SelectionRule = "ratio"
    short_steps: int = 100
    short_batch: int = 64
    short_rate: float = 0.005
    images: int | None = None
    held_out: float = 0.1
    rule: Rule = "l2"
    finish: Finish = "long"
    recipe: str | None = None
    epochs: int | None = None
    seed: int = 0
    beside: tuple[str, ...] = ()
    confidence: float = 0.9
    weights: str | None = None
    fit_recipe: bool = True

    def __post_init__(self) -> None:
        parse_target(self.target)
        self.netadapt_options()
        self.short_term()
        z_of(self.confidence)
        if self.images is not None and self.images < 1:
            raise RunError(f"{self.images!r} images cannot be trained on; give at least one a class")
        if not 0 < self.held_out < 1:
            raise RunError(f"the held-out share is {self.held_out!r}; it must be above 0 and below 1, such as 0.1")
        if self.epochs is not None and not 1 <= self.epochs <= MAX_EPOCHS:
            raise RunError(f"epochs is {self.epochs!r}; it must be from 1 to {MAX_EPOCHS:,}")
        for name, value, known in (("rule", self.rule, Rule), ("finish", self.finish, Finish)):
            if value not in get_args(known):
                raise RunError(f"{name} is {value!r}; it must be one of {', '.join(get_args(known))}")

    def netadapt_options(self) -> NetAdaptOptions:
        """How NetAdapt steps."""
        return NetAdaptOptions(self.step_fraction, self.decay, self.selection)

    def short_term(self) -> ShortTerm:
        """The fine-tune of every proposal."""
        return ShortTerm(self.short_steps, self.short_batch, self.short_rate, self.rule, seed=self.seed)

    def finishing_recipe(self, resolution: int, images: int) -> Recipe:
        """The recipe of the end, for so many images of this side.

        A long fine-tune is by ``finetune``, on small images by ``small_32`` at a fifth of its rate for a third of its
        epochs; a training from scratch by ``paper`` or ``small_32``.

        Raises:
            UnknownNameError, TrainingError: no such recipe, or a damaged one.
        """
        small, scratch = resolution <= SMALL, self.finish == "scratch"
        recipe = load_recipe(self.recipe or ("small_32" if small else "paper" if scratch else "finetune"))
        if self.recipe is None and small and not scratch:
            recipe = recipe.for_epochs(max(1, recipe.epochs // 3)).changed(learning_rate=recipe.learning_rate / 5)
        if self.epochs is not None:
            recipe = recipe.for_epochs(self.epochs)
        shipped = self.recipe is None or self.recipe in recipe_names()
        return recipe.for_images(images) if shipped and self.fit_recipe else recipe
