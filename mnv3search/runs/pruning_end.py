"""The training at the end of a pruning: a long fine-tune, one from scratch, or none."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from mnv3search.layer_search.trained_scoring import fresh_network
from mnv3search.runs.progress import RunProgress
from mnv3search.runs.pruning_data import PruningData
from mnv3search.runs.pruning_folder import PruningFolder

if TYPE_CHECKING:
    from mnv3search.training.trained import TrainedNetwork


def end_training(
    folder: PruningFolder, narrowed: TrainedNetwork, data: PruningData, progress: RunProgress
) -> TrainedNetwork:
    """``narrowed`` after the training that the settings ask for, resumed where one was begun.

    All training images are learned from, the held-out ones too; the best epoch is chosen by the validation images. A
    long fine-tune that made the network worse by these is not taken.

    Raises:
        TrainingError, DataError: the training failed; it can be resumed.
        KeyboardInterrupt: Ctrl-C, with its state saved.
    """
    settings = folder.settings
    if settings.finish == "none":
        return narrowed
    from mnv3search.training.evaluation import evaluate_network
    from mnv3search.training.loop import train_network
    from mnv3search.training.steps import plain_copy

    recipe = settings.finishing_recipe(narrowed.architecture.resolution, len(data.splits.train))
    folder.finishing.mkdir(exist_ok=True)
    scratch = settings.finish == "scratch"
    what = "training from scratch" if scratch else "long fine-tune"
    progress.stage(f"{what} by {recipe.name} in batches of {recipe.batch_size}")
    network = fresh_network(narrowed.architecture, settings.seed) if scratch else plain_copy(narrowed.network)
    result = train_network(
        network, data.splits, recipe, preprocessing=narrowed.preprocessing, seed=settings.seed, folder=folder.finishing,
        resume=(folder.finishing / "last.safetensors").is_file(), progress=progress,
    )  # fmt: skip
    trained = replace(result.trained, facts={**result.trained.facts, "finish_images": result.images})
    if not scratch:
        val = data.splits.val
        progress.stage("judging the network before its long fine-tune, images", len(val))
        before = evaluate_network(
            narrowed.network, val, narrowed.preprocessing, batch_size=64, progress=lambda n, _: progress.advance(n)
        ).top1
        if before > max(record.val_top1 for record in result.history):
            progress.note(f"the long fine-tune did not improve on {before:.2f} % of the validation images: left away")
            return narrowed
    return trained
