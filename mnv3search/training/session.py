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
from mnv3search.training.devices import is_main_process, process_count, wait_for_everyone
from mnv3search.training.folder import TrainingFolder, TrainingSettings
from mnv3search.training.loop import OnEpoch, TrainingResult, train_network
from mnv3search.training.progress import TrainingProgress
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


@dataclass(frozen=True, slots=True, eq=False)
class _Session:
    """A training that is ready to start, or to go on; ``folder`` is the first process's alone."""

    path: Path
    settings: TrainingSettings
    folder: TrainingFolder | None
    network: MobileNetwork
    data: DataSplits
    teacher: TrainedNetwork | None
    workers: int
    resume: bool


def start_training(
    request: TrainingRequest, out: Path | None, progress: TrainingProgress
) -> tuple[Path, TrainingResult]:
    """Check everything that was asked, read the data, build the network, make the folder, and train in it.

    Returns:
        The folder, and what the training came to.

    Raises:
        DataError, WeightsError, TrainingError, UnknownNameError, ArchitectureError: what was asked cannot be.
        RunError: the folder cannot be made or written; several processes need a name for it.
        KeyboardInterrupt: Ctrl-C, with the state saved.
    """
    session = _started(request, out, progress)
    with _locked(session.path):
        return session.path, _run(session, progress)


def resume_training(
    path: Path, progress: TrainingProgress, workers: int | None = None, data: str | None = None
) -> TrainingResult:
    """Go on with an interrupted training, from its folder alone; one without a saved step begins anew in it.

    ``data`` says where the images are now, if they have moved.

    Raises:
        RunError: it is no training's folder, another process trains in it, or its state is gone.
        DataError: its data are gone or have changed.
        WeightsError: it had no step yet, and the weights that it begins with are gone.
        KeyboardInterrupt: Ctrl-C, with the state saved.
    """
    TrainingFolder.open(path)  # a path that is none is no matter of locks
    with _locked(path):
        return _run(_resumed(path, progress, workers, data), progress)


def _locked(path: Path) -> AbstractContextManager[None]:
    return locked(path) if is_main_process() else nullcontext()


def _started(request: TrainingRequest, out: Path | None, progress: TrainingProgress) -> _Session:
    if process_count() > 1 and out is None:
        raise TrainingError("several processes train into one folder: give it a name with --out")
    if out is not None and is_main_process():
        TrainingFolder.check_free(out)  # before the images are looked at, which can take minutes
    architecture = parse_network(request.network)
    if request.resolution is not None:
        architecture = architecture.with_resolution(request.resolution)
    recipe = asked_recipe(request, architecture.resolution)
    initial = _initial(request, architecture)
    teacher = None if request.teacher is None else load_trained(Path(request.teacher))
    data = _opened(request.data, progress, request.held_out)
    architecture = architecture.with_classes(len(data.train.classes))
    preprocessing = _preprocessing(architecture, initial, teacher, data)
    if (note := _enlarged(request, architecture.resolution, recipe, data)) is not None:
        progress.note(note)
    recipe = _fitted(recipe, request, len(data.train), progress)
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
    return _Session(path, settings, folder, network, data, teacher, _threads(request.workers), resume=False)


def _fitted(recipe: Recipe, request: TrainingRequest, images: int, progress: TrainingProgress) -> Recipe:
    """A shipped recipe for so few images; a batch that the user gave stays, and one that processes share."""
    if request.batch_size is not None or request.recipe not in {None, *recipe_names()} or process_count() > 1:
        return recipe
    fitted = recipe.for_images(images)
    if fitted.batch_size != recipe.batch_size:
        progress.note(
            f"batches of {fitted.batch_size}: {recipe.name}'s of {recipe.batch_size} would make too few steps"
        )
    return fitted


def _resumed(path: Path, progress: TrainingProgress, workers: int | None, moved: str | None) -> _Session:
    from mnv3search.network.build import MobileNetwork

    folder = TrainingFolder.open(path)
    if moved is not None:
        folder.settings = replace(folder.settings, data=absolute_data(moved))
    settings, resume = folder.settings, (path / LAST).exists()
    if not resume and (path / BEST).exists():
        raise RunError(f"{path} has no {LAST}, from which its training could go on; start it anew in another folder")
    teacher = None if settings.teacher is None else load_trained(Path(settings.teacher))
    try:
        with folder.resumable():
            data = _opened(settings.data, progress, settings.held_out)
    except DataError as error:
        raise DataError(f"{error}; if the images moved: {folder.command_to_resume} --data WHERE") from None
    if resume:
        network = MobileNetwork(folder.architecture())
    else:
        initial = None if settings.weights is None else read_weights(settings.weights)
        network = initial_network(
            folder.architecture(), settings.seed, initial, data.train.classes, progress, settings.weights
        )
    if is_main_process():
        folder.continued()
    return _Session(
        path, settings, folder if is_main_process() else None, network, data, teacher, _threads(workers), resume,
    )  # fmt: skip


def _run(session: _Session, progress: TrainingProgress) -> TrainingResult:
    """Train, and note in the folder how it ended; the seconds are those of all sessions."""
    settings, folder = session.settings, session.folder
    with nullcontext() if folder is None else folder.closing_notes():
        result = train_network(
            session.network, session.data, settings.loaded_recipe(), preprocessing=settings.loaded_preprocessing(),
            seed=settings.seed, folder=session.path, resume=session.resume, freeze=settings.freeze,
            teacher=session.teacher.network if session.teacher else None, workers=session.workers, progress=progress,
            on_epoch=_log(session),
        )  # fmt: skip
        if folder is None:
            return result
        folder.finish("finished", settings=folder.settings.to_mapping(), best=dict(result.trained.facts))
        return replace(result, seconds=folder.seconds)


def asked_recipe(request: TrainingRequest, resolution: int) -> Recipe:
    """The recipe that a request names or implies, with the request's changes."""
    name = request.recipe or _default_recipe(request, resolution)
    recipe = load_recipe(name)
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


def _enlarged(request: TrainingRequest, resolution: int, recipe: Recipe, data: DataSplits) -> str | None:
    """What to know of images that are all smaller than the network's own resolution, where no other was asked for."""
    report = data.report
    if request.resolution is not None or report is None or not 0 < report.longest_side < resolution:
        return None
    side = report.longest_side
    sides = f"{side}" if report.shortest_side == side else f"{report.shortest_side} to {side}"
    epochs = "1 epoch" if recipe.epochs == 1 else f"{recipe.epochs} epochs"
    name = recipe.name if request.recipe else _default_recipe(request, side)
    other = "" if name == recipe.name else f", then by recipe {name}"
    return (
        f"the images, of {sides} pixels, are enlarged to {resolution}×{resolution}, the network's own resolution, and "
        f"the recipe is {recipe.name} ({epochs}); --resolution {side} trains faster, on {side}×{side}{other}"
    )


def initial_network(
    architecture: Architecture, seed: int, initial: Path | TrainedNetwork | None, classes: tuple[str, ...],
    progress: TrainingProgress, where: str | None = None,
) -> MobileNetwork:  # fmt: skip
    """A network of ``architecture``, fresh from ``seed`` or with the weights of ``initial``, which is at ``where``.

    The classifier of a trained network is kept where it was trained on these very ``classes``.

    Raises:
        WeightsError: the weights are another network's; the message says which layers differ.
    """
    import torch

    from mnv3search.network.build import build_network
    from mnv3search.training.devices import own_randomness

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


def _initial(request: TrainingRequest, architecture: Architecture) -> Path | TrainedNetwork | None:
    """The weights, held to the network before the images are looked at."""
    if request.weights is None:
        if request.freeze == "features":
            raise WeightsError("--freeze features keeps weights as they are, and there are none: give --weights")
        return None
    return check_weights(request.network, request.weights, architecture)


def _opened(where: str, progress: TrainingProgress, netadapt_share: float) -> DataSplits:
    progress.stage(f"looking at the images of {where}")
    data = open_data(
        where, progress=lambda done, total: progress.advance(done, "images", total), on_fault=progress.note,
        netadapt_share=netadapt_share,
    )  # fmt: skip
    for line in data.report.lines() if data.report else ():
        progress.note(line)
    counts = _counts(data)
    progress.note(f"{counts['train']:,} to learn from, {counts['val']:,} to choose by, {counts['classes']} classes")
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


def _log(session: _Session) -> OnEpoch | None:
    if not session.settings.tensorboard or session.folder is None:
        return None
    from mnv3search.training.progress import TensorBoardLog

    return TensorBoardLog(session.path / "tensorboard").record


def _threads(workers: int | None) -> int:
    return min(allowed_cores(), 16) if workers is None else workers


def finished_training(path: Path) -> TrainingResult | None:
    """What the training in the folder ``path`` came to, or None where something of it is left to do.

    Its ``seconds`` are those of all sessions.

    Raises:
        RunError: it is no training's folder, or its state is damaged.
        WeightsError: its best network is damaged.
    """
    folder = TrainingFolder.open(path)
    if folder.manifest.get("status") != "finished" or not all((path / name).exists() for name in (LAST, BEST)):
        return None
    counters = load_counters(path / LAST)
    if not counters.history or counters.epoch < folder.settings.loaded_recipe().epochs:
        return None
    images = sum(round(record.images_per_second * record.seconds) for record in counters.history)
    return TrainingResult(load_trained(path / BEST), tuple(counters.history), float(folder.manifest["seconds"]), images)
