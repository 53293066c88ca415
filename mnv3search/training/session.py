"""A training from names and paths to a folder with a trained network: started, resumed, or finished already."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from mnv3search.architecture import Architecture
from mnv3search.errors import DataError, RunError, TrainingError, WeightsError
from mnv3search.files import locked
from mnv3search.naming import parse_network
from mnv3search.threads import allowed_cores
from mnv3search.training.data.open_data import absolute_data, open_data
from mnv3search.training.data.preprocessing import Preprocessing
from mnv3search.training.data.splits import DataSplits
from mnv3search.training.devices import is_main_process, own_randomness, process_count, wait_for_everyone
from mnv3search.training.folder import TrainingFolder, TrainingSettings
from mnv3search.training.loop import TrainingResult, train_network
from mnv3search.training.progress import TensorBoardLog, TrainingProgress
from mnv3search.training.recipe import Recipe, load_recipe, recipe_names
from mnv3search.training.state import LAST, load_counters
from mnv3search.training.trained import BEST, TrainedNetwork, check_weights, load_trained, read_weights
from mnv3search.training.workload import Freeze

if TYPE_CHECKING:
    from mnv3search.network.build import MobileNetwork

SMALL = 64  # pixels: up to here a network from scratch is trained by small_32


@dataclass(frozen=True, slots=True)
class TrainingRequest:
    """What a user asks for; None leaves a choice to the recipe, the network or the data."""

    network: str
    data: str
    weights: str | None = None
    freeze: Freeze = "none"
    recipe: str | None = None
    epochs: int | None = None
    batch_size: int | None = None
    learning_rate: float | None = None
    precision: str | None = None
    resolution: int | None = None
    seed: int = 0
    teacher: str | None = None
    workers: int | None = None
    tensorboard: bool = False
    threads: int | None = None
    held_out: float = 0.0


def start_training(
    request: TrainingRequest, out: Path | None, progress: TrainingProgress
) -> tuple[Path, TrainingResult]:
    """Check everything that was asked, read the data, build the network, make the folder, and train in it.

    Returns:
        The folder and the result.
    """
    if process_count() > 1 and out is None:
        raise TrainingError("several processes train into one folder: give it a name with --out")
    if out is not None and is_main_process():
        TrainingFolder.check_free(out)  # before the images are scanned, which can take minutes
    architecture = parse_network(request.network)
    if request.resolution is not None:
        architecture = architecture.with_resolution(request.resolution)
    recipe = asked_recipe(request, architecture.resolution)
    if request.weights is None and request.freeze == "features":
        raise WeightsError("--freeze features keeps weights as they are, and there are none: give --weights")
    initial = None if request.weights is None else check_weights(request.network, request.weights, architecture)
    teacher = None if request.teacher is None else load_trained(request.teacher)
    data = _opened(request.data, progress, request.held_out)
    architecture = architecture.with_classes(len(data.train.classes))
    preprocessing = _preprocessing(architecture, initial, teacher, data)
    _note_enlarged(request, architecture.resolution, recipe, data, progress)
    if request.batch_size is None and request.recipe in {None, *recipe_names()} and process_count() == 1:
        fitted = recipe.for_images(len(data.train))
        if fitted != recipe:
            progress.note(
                f"batches of {fitted.batch_size}: {recipe.name}'s of {recipe.batch_size} would make too few steps"
            )
        recipe = fitted
    network = initial_network(architecture, request.seed, initial, data.train.classes, progress, request.weights)
    settings = TrainingSettings(
        request.network, request.data, recipe.to_mapping(), recipe.name, preprocessing.to_mapping(), request.seed,
        request.weights, request.freeze, request.teacher, request.tensorboard, request.threads, request.held_out,
    )  # fmt: skip
    folder = None
    if is_main_process():
        folder = TrainingFolder.create(out, settings, architecture, images=_counts(data))
    wait_for_everyone()
    path = folder.path if folder is not None else out
    assert path is not None
    with _locked(path):
        return path, _train(path, folder, settings, network, data, teacher, request.workers, progress)


def resume_training(
    path: Path, progress: TrainingProgress, workers: int | None = None, data: str | None = None
) -> TrainingResult:
    """Resume an interrupted training from its folder alone; one without a saved step begins anew in it.

    ``data`` says where the images are now, if they have moved.
    """
    from mnv3search.network.build import MobileNetwork

    TrainingFolder.open(path)  # a path that is none is no matter of locks
    with _locked(path):
        folder = TrainingFolder.open(path)
        if data is not None:
            folder.settings = replace(folder.settings, data=absolute_data(data))
        settings, resume = folder.settings, (path / LAST).exists()
        if not resume and (path / BEST).exists():
            raise RunError(
                f"{path} has no {LAST}, from which its training could be resumed; start it in another folder"
            )
        teacher = None if settings.teacher is None else load_trained(settings.teacher)
        try:
            with folder.resumable():
                images = _opened(settings.data, progress, settings.held_out)
        except DataError as error:
            raise DataError(f"{error}; if the images moved: {folder.command_to_resume} --data WHERE") from None
        if resume:
            network = MobileNetwork(folder.architecture())
        else:
            initial = None if settings.weights is None else read_weights(settings.weights)
            network = initial_network(
                folder.architecture(), settings.seed, initial, images.train.classes, progress, settings.weights
            )
        if is_main_process():
            folder.continued()
        own = folder if is_main_process() else None
        return _train(path, own, settings, network, images, teacher, workers, progress, resume=resume)


def finished_training(path: Path) -> TrainingResult | None:
    """The result of the training in the folder ``path``, without its images; None where something is left to do.

    Its ``seconds`` are those of all sessions.
    """
    folder = TrainingFolder.open(path)
    if folder.manifest.get("status") != "finished" or not all((path / name).exists() for name in (LAST, BEST)):
        return None
    counters = load_counters(path / LAST)
    if not counters.history or counters.epoch < folder.settings.loaded_recipe().epochs:
        return None
    images = sum(round(record.images_per_second * record.seconds) for record in counters.history)
    return TrainingResult(load_trained(path / BEST), tuple(counters.history), float(folder.manifest["seconds"]), images)


def _locked(path: Path) -> AbstractContextManager[None]:
    return locked(path) if is_main_process() else nullcontext()


def _train(
    path: Path, folder: TrainingFolder | None, settings: TrainingSettings, network: MobileNetwork, data: DataSplits,
    teacher: TrainedNetwork | None, workers: int | None, progress: TrainingProgress, *, resume: bool = False,
) -> TrainingResult:  # fmt: skip
    """Train, and note in the ``folder``, which the first process alone has, how it ended."""
    with nullcontext() if folder is None else folder.closing_notes():
        events = TensorBoardLog(path / "tensorboard") if settings.tensorboard and folder is not None else None
        result = train_network(
            network, data, settings.loaded_recipe(), preprocessing=settings.loaded_preprocessing(), seed=settings.seed,
            folder=path, resume=resume, freeze=settings.freeze, teacher=teacher.network if teacher else None,
            workers=min(allowed_cores(), 16) if workers is None else workers, progress=progress,
            on_epoch=events.record if events else None,
        )  # fmt: skip
        if folder is None:
            return result
        folder.finish("finished", settings=folder.settings.to_mapping(), best=dict(result.trained.facts))
        return replace(result, seconds=folder.seconds)


def asked_recipe(request: TrainingRequest, resolution: int) -> Recipe:
    """The recipe that a request names or implies, with the request's changes."""
    recipe = load_recipe(request.recipe or _default_recipe(request, resolution))
    if request.epochs is not None:
        recipe = recipe.for_epochs(request.epochs)
    recipe = recipe.changed(batch_size=request.batch_size, precision=request.precision)
    if request.learning_rate is not None:
        recipe = replace(recipe, learning_rate=request.learning_rate, reference_batch=recipe.batch_size)
    return recipe


def _default_recipe(request: TrainingRequest, resolution: int) -> str:
    if request.freeze == "features":
        return "transfer"
    if request.weights is not None:
        return "finetune"
    return "small_32" if resolution <= SMALL else "paper"


def _note_enlarged(
    request: TrainingRequest, resolution: int, recipe: Recipe, data: DataSplits, progress: TrainingProgress
) -> None:
    """Note that all images are smaller than the network's own resolution, where no other was asked for."""
    report = data.report
    if request.resolution is not None or report is None or not 0 < report.longest_side < resolution:
        return
    side = report.longest_side
    sides = f"{side}" if report.shortest_side == side else f"{report.shortest_side} to {side}"
    epochs = "1 epoch" if recipe.epochs == 1 else f"{recipe.epochs} epochs"
    name = recipe.name if request.recipe else _default_recipe(request, side)
    other = "" if name == recipe.name else f", then by recipe {name}"
    progress.note(
        f"the images, of {sides} pixels, are enlarged to {resolution}×{resolution}, the network's own resolution, and "
        f"the recipe is {recipe.name} ({epochs}); --resolution {side} trains faster, on {side}×{side}{other}"
    )


def initial_network(
    architecture: Architecture, seed: int, initial: Path | TrainedNetwork | None, classes: tuple[str, ...],
    progress: TrainingProgress, where: str | None = None,
) -> MobileNetwork:  # fmt: skip
    """A network of ``architecture``, fresh from ``seed`` or with the weights of ``initial``, which is at ``where``.

    The classifier of a trained network is kept where it was trained on these very ``classes``.
    """
    import torch

    from mnv3search.network.build import build_network

    with own_randomness():
        torch.manual_seed(seed)
        network = build_network(architecture)
        if initial is not None:
            from mnv3search.network.initial_weights import load_initial_weights

            other = isinstance(initial, TrainedNetwork) and initial.classes != classes
            try:
                loaded = load_initial_weights(network, initial, new_classifier=True if other else None)
            except WeightsError as error:
                if isinstance(initial, Path):  # then the message has its name already
                    raise
                raise WeightsError(f"{where}: {error}") from None
            progress.note(str(loaded))
    return network


def _opened(where: str, progress: TrainingProgress, netadapt_share: float) -> DataSplits:
    progress.stage(f"scanning the images of {where}")
    data = open_data(
        where, progress=lambda done, total: progress.advance(done, "images", total), on_fault=progress.note,
        netadapt_share=netadapt_share,
    )  # fmt: skip
    for line in data.report.lines() if data.report else ():
        progress.note(line)
    counts = _counts(data)
    progress.note(
        f"{counts['train']:,} training images, {counts['val']:,} validation images, {counts['classes']} classes"
    )
    return data


def _counts(data: DataSplits) -> dict[str, int]:
    test = len(data.test) if data.test is not None else 0
    return {"train": len(data.train), "val": len(data.val), "test": test, "classes": len(data.train.classes)}


def _preprocessing(
    architecture: Architecture, initial: Path | TrainedNetwork | None, teacher: TrainedNetwork | None, data: DataSplits
) -> Preprocessing:
    """That of the weights or of the teacher, which learned with it; ImageNet's elsewhere."""
    if teacher is not None and teacher.classes != data.train.classes:
        raise TrainingError(
            f"the teacher's {len(teacher.classes)} classes are not the {len(data.train.classes)} of the images, or in "
            "another order; a teacher must be trained on the same classes"
        )
    source = initial if isinstance(initial, TrainedNetwork) else teacher
    if source is None:
        return Preprocessing(architecture.resolution)
    made = replace(source.preprocessing, resolution=architecture.resolution)
    if teacher is not None and (teacher.preprocessing.mean, teacher.preprocessing.std) != (made.mean, made.std):
        raise TrainingError("the teacher was trained with another mean and deviation of pixels than --weights")
    return made
