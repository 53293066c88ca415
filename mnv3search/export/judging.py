"""How good a trained network, or its exported model, is on labelled images: by one rule for both."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from mnv3search.errors import DataError
from mnv3search.export.pixels import squares_of
from mnv3search.export.predictor import NetworkPredictor, Predictor

if TYPE_CHECKING:
    from mnv3search.training.data.images import LabelledImages
    from mnv3search.training.judge import Judgement


def judge_predictor(
    predictor: Predictor, images: LabelledImages, *, batch_size: int = 256,
    progress: Callable[[int, int], None] | None = None,
) -> Judgement:  # fmt: skip
    """Judge what :func:`~mnv3search.export.predictor.load_predictor` gave on every one of ``images``.

    A network works where the machine is fastest; an exported model works in onnxruntime, in calls of as many images as
    it takes.

    Args:
        predictor: of a trained network, or an exported model.
        images: with labels in the order of its classes.
        batch_size: images at a time; an exported model is given fewer large ones, which onnxruntime keeps in memory.
        progress: told how many images of how many are judged.

    Raises:
        DataError: no images, other classes, or an image that cannot be read.
        DivergedError: a logit that is not finite.
    """
    from mnv3search.training.devices import judging_device
    from mnv3search.training.judge import judge

    if not isinstance(predictor, NetworkPredictor):
        return _judge_model(predictor, images, batch_size, progress)
    network = predictor.trained.network.to(judging_device())
    return judge(network, images, predictor.preprocessing, batch_size=batch_size, progress=progress)


def unseen(predictor: Predictor, images: LabelledImages) -> tuple[LabelledImages, str | None]:
    """``images`` without those that the network was trained on, as far as it knows them, and what to say of that.

    It knows them by their classes and names: all of them, or those that a training does not hold out of a whole folder.
    """
    from mnv3search.training.data.open_data import VAL_SHARE
    from mnv3search.training.data.splits import NETADAPT, fingerprint, held_out

    facts = predictor.trained.facts if isinstance(predictor, NetworkPredictor) else {}
    known, left_out = facts.get("train_images"), facts.get("held_out")
    if known is None or not len(images):
        return images, None
    if fingerprint(images) == known:
        return images, "the network was trained on these very images: what it scores here says nothing of others"
    try:
        learnt, held = held_out(images, VAL_SHARE)
        if isinstance(left_out, float):
            learnt = held_out(learnt, left_out, NETADAPT)[0]
    except DataError:
        return images, None
    if fingerprint(learnt) != known:
        return images, None
    return held, f"{len(learnt):,} of the {len(images):,} images were trained on: judged on the {len(held):,} held out"


def _judge_model(
    model: Predictor, images: LabelledImages, batch_size: int, progress: Callable[[int, int], None] | None
) -> Judgement:
    import torch

    from mnv3search.training.judge import Tally, check_judged

    check_judged(images, len(model.classes))
    began, tally = time.perf_counter(), Tally(len(model.classes))
    for squares in squares_of(images, model.preprocessing, batch_size):
        tally.add(torch.from_numpy(model.logits(squares.pixels)), torch.from_numpy(squares.labels))
        if progress is not None:
            progress(tally.images, len(images))
    return tally.judgement(time.perf_counter() - began)
