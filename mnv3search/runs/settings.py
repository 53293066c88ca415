"""What a run or a pruning was asked: every choice that its result depends on, kept so that it can continue.

The defaults of the command line and of :func:`mnv3search.run` and :func:`mnv3search.prune` are those of the two classes
here, and of the functions that fill in what depends on the space or the evaluator.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

from mnv3search.errors import EvaluatorError, RunError, UnknownNameError, WeightsError
from mnv3search.manifest import Settings

if TYPE_CHECKING:
    from mnv3search.layer_search.netadapt import NetAdaptOptions
    from mnv3search.layer_search.scoring import ShortTerm
    from mnv3search.training.recipe import Recipe

RunKind = Literal["run", "search", "netadapt"]
Selection = Literal["ratio", "accuracy"]
Finish = Literal["long", "scratch", "none"]
Rule = Literal["l2", "first", "norm_scale"]
MAX_TRIALS = 10_000_000
MAX_FINALISTS = 100
TRIALS_SCORED, TRIALS_TRAINED = 1_000, 24  # of evaluators that cost a pass through the network, or a training
DEVICE, EVALUATOR = "pixel1", "prior"  # of NetAdapt alone, and of a comparison
PRUNING_DEVICE = "host"
SMALL = 64  # pixels; the side up to which images are trained on as small ones
MAX_EPOCHS = 100_000


@dataclass(frozen=True, slots=True)
class RunSettings(Settings):
    """The question of one run.

    Attributes:
        kind: ``run`` (block search, then NetAdapt), ``search`` or ``netadapt``.
        subject: the space's name or path, or NetAdapt's network; a copy of it stands in the folder.
        target: as written, such as ``50ms`` or ``0.8x``.
        device, evaluator: by name, the evaluator with its options.
        trials, seed, sampler, objectives, reward_exponent: of the block search.
        soft: the block search maximises the reward, which trades accuracy for latency about the target, instead of
            top-1 within it.
        slack: block search goes up to (1 + slack) · target.
        finalists: how many networks NetAdapt takes down to the target.
        step_fraction, decay, selection: NetAdapt's.
        confidence: a network is within the target where its latency and so many of its deviations are (see
            :func:`~mnv3search.latency.confidence.z_of`); 0.5 counts the latency alone.
        data: where the evaluator's images are, as ``open_data`` takes it; None where it needs none. The networks take
            the images' number of classes, whatever the space or the subject says.
        pruner: when a training of a network is given up.

    Raises:
        RunError: a value out of its range, or steps of NetAdapt that cannot sum to the slack.
        UnknownNameError: no such sampler or pruner.
        Mnv3SearchError: a NetAdapt option out of its range.
    """

    # runs of before there was a confidence compared the latency itself with the target
    OLDER: ClassVar[Mapping[str, object]] = {"confidence": 0.5}

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
    selection: Selection = "ratio"
    confidence: float = 0.9
    data: str | None = None
    pruner: str = "auto"

    def __post_init__(self) -> None:
        from mnv3search.block_search.samplers import SAMPLERS
        from mnv3search.block_search.stopping import PRUNERS

        if self.kind not in get_args(RunKind):
            raise RunError(f"kind is {self.kind!r}; it must be one of {', '.join(get_args(RunKind))}")
        _check_range("trials", self.trials, 1, MAX_TRIALS)
        _check_range("seed", self.seed, 0, 2**32 - 1)
        _check_range("objectives", self.objectives, 1, 2)
        _check_range("slack", self.slack, 0, 10)
        _check_range("finalists", self.finalists, 0, MAX_FINALISTS)
        _check_range("reward exponent", self.reward_exponent, -10, 0)
        if not 0.5 <= self.confidence < 1:
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
        from mnv3search.layer_search.netadapt import NetAdaptOptions

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
        held_out: share of the training images that proposals are scored on, and not trained on in their fine-tunes.
        rule: which channels a narrowing keeps.
        finish: a long fine-tune, a training from scratch, or none.
        recipe, epochs: of that; None for what suits the image size.
        seed: of everything random.
        baselines: trained networks to compare the result with in the picture, such as width multipliers.
        weights: file with the weights of ``run``, where that was trained elsewhere.
        fit_recipe: whether a shipped recipe of the end is fitted to the number of images; before, it was not.
        confidence: the result counts as within the target with this confidence, by its latency's error.

    Raises:
        RunError: a value out of its range.
        TargetError: a target that cannot be read, or a confidence that is not from 0.5 to below 1.
        Mnv3SearchError: an option of NetAdapt or of the fine-tune out of its range.
    """

    OLDER: ClassVar[Mapping[str, object]] = {"fit_recipe": False}
    RENAMED: ClassVar[Mapping[str, str]] = {"beside": "baselines"}

    run: str
    data: str
    target: str
    device: str
    step_fraction: float = 0.025
    decay: float = 1.0
    selection: Selection = "ratio"
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
    baselines: tuple[str, ...] = ()
    confidence: float = 0.9
    weights: str | None = None
    fit_recipe: bool = True

    def __post_init__(self) -> None:
        from mnv3search.latency.confidence import z_of
        from mnv3search.latency.model import parse_target

        if not self.run or not self.data:
            raise RunError("a pruning needs a trained network and its images: neither can be an empty text")
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
        from mnv3search.layer_search.netadapt import NetAdaptOptions

        return NetAdaptOptions(self.step_fraction, self.decay, self.selection)

    def short_term(self) -> ShortTerm:
        """The fine-tune of every proposal."""
        from mnv3search.layer_search.scoring import ShortTerm

        return ShortTerm(self.short_steps, self.short_batch, self.short_rate, self.rule, seed=self.seed)

    def finishing_recipe(self, resolution: int, images: int) -> Recipe:
        """The recipe of the end, for so many images of this side.

        A long fine-tune is by ``finetune``, on small images by ``small_32`` at a fifth of its rate for a third of its
        epochs; a training from scratch by ``paper`` or ``small_32``.
        """
        from mnv3search.training.recipe import load_recipe, recipe_names

        small, scratch = resolution <= SMALL, self.finish == "scratch"
        recipe = load_recipe(self.recipe or ("small_32" if small else "paper" if scratch else "finetune"))
        if self.recipe is None and small and not scratch:
            recipe = recipe.for_epochs(max(1, recipe.epochs // 3)).changed(learning_rate=recipe.learning_rate / 5)
        if self.epochs is not None:
            recipe = recipe.for_epochs(self.epochs)
        shipped = self.recipe is None or self.recipe in recipe_names()
        return recipe.for_images(images) if shipped and self.fit_recipe else recipe


RUN: Mapping[str, Any] = {f.name: f.default for f in fields(RunSettings) if f.default is not MISSING}
"""The defaults of :class:`RunSettings` by name; the command line's are these."""
PRUNING: Mapping[str, Any] = {f.name: f.default for f in fields(PruningSettings) if f.default is not MISSING}
"""The same of :class:`PruningSettings`."""


def space_settings(
    kind: Literal["run", "search"], space: str, target_latency: str, *, device: str | None = None,
    evaluator: str | None = None, data: str | None = None, trials: int | None = None, finalists: int | None = None,
    **options: Any,
) -> RunSettings:  # fmt: skip
    """The settings of a run over a space: its own device and evaluator, and as many trials as an evaluation allows.

    Everything that is named is looked up, so that a mistake is said before there is a folder; images are not read.
    """
    from mnv3search.accuracy.evaluator import capabilities_of
    from mnv3search.accuracy.registry import EvaluatorContext, load_evaluator
    from mnv3search.latency.devices import load_device
    from mnv3search.latency.model import parse_target
    from mnv3search.space import load_space
    from mnv3search.training.data.open_data import open_data

    parse_target(target_latency)
    loaded = load_space(space)
    device, evaluator = device or loaded.device, evaluator or loaded.evaluator
    if evaluator is None:
        raise EvaluatorError(
            f"space {loaded.name} has no evaluator of its own: accuracy there must be learned from your images; give "
            "them with --data and add --evaluator proxy, or take a score such as --evaluator zero_cost:madds"
        )
    load_device(device)
    images = open_data(data, scan=False) if data else None
    can = capabilities_of(load_evaluator(evaluator, EvaluatorContext(loaded, images)))
    if trials is None:
        trials = TRIALS_TRAINED if can.trains else RUN["trials"] if can.cheap else TRIALS_SCORED
    if finalists is None:
        finalists = 0 if can.trains and kind == "run" else RUN["finalists"]
    return RunSettings(
        kind, space, target_latency, device, evaluator, trials=trials, finalists=finalists, data=data, **options
    )


def netadapt_settings(
    network: str, target_latency: str, *, device: str | None = None, evaluator: str | None = None, **options: Any
) -> RunSettings:
    """The settings of NetAdapt from a network without weights."""
    from mnv3search.accuracy.registry import load_evaluator
    from mnv3search.latency.devices import load_device
    from mnv3search.latency.model import parse_target
    from mnv3search.naming import parse_network

    device, evaluator = device or DEVICE, evaluator or EVALUATOR
    parse_target(target_latency)
    parse_network(network)
    load_device(device)
    load_evaluator(evaluator)
    return RunSettings("netadapt", network, target_latency, device, evaluator, **options)


def pruning_settings(
    run: str, data: str, target_latency: str, *, device: str | None = None, weights: str | None = None,
    held_out: float | None = None, **options: Any,
) -> PruningSettings:  # fmt: skip
    """The settings of a pruning; ``held_out`` is what the network's own training left out, where that is known."""
    from mnv3search.latency.devices import load_device

    if weights is None and run and not is_trained(run):
        raise WeightsError(
            f"{run} is no trained network, which --data asks for; give the folder of a training or its "
            f"best.safetensors (mnv3search train {run} --data {data} makes one), add --weights FILE, or leave --data "
            "away"
        )
    device = device or PRUNING_DEVICE
    resolution, left_out = _resolution_and_held_out(run, weights)
    if held_out is None:
        held_out = left_out or PRUNING["held_out"]
    settings = PruningSettings(run, data, target_latency, device, held_out=held_out, weights=weights, **options)
    settings.finishing_recipe(resolution, images=1)  # which says what is wrong with it
    load_device(device)
    return settings


def is_trained(network: str) -> bool:
    """Whether this names a trained network: a file of one, or a folder, other than a search's without weights."""
    if not network or not Path(network).is_dir():
        return network.endswith(".safetensors")
    return (Path(network) / "best.safetensors").is_file() or not (Path(network) / "best.json").is_file()


def _resolution_and_held_out(run: str, weights: str | None) -> tuple[int, float | None]:
    """The pixels a side that a network takes, and the share of its training images that was left out for NetAdapt."""
    from mnv3search.naming import parse_network
    from mnv3search.training.trained import load_trained

    if weights is not None:
        return parse_network(run).resolution, None
    trained = load_trained(run)
    left_out = trained.facts.get("held_out")
    return trained.architecture.resolution, left_out if isinstance(left_out, float) else None
