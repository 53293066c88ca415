"""The loss of a step: cross-entropy with the labels, and with a teacher's probabilities where there is one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from mnv3search.errors import TrainingError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mnv3search.training.recipe import Recipe


def batch_loss(logits: Tensor, labels: Tensor, smoothing: float) -> Tensor:
    """Mean cross-entropy of logits (N, C) with labels (N,) or soft labels (N, C)."""
    from torch.nn import functional

    return functional.cross_entropy(logits, labels, label_smoothing=smoothing)


class Teacher:
    """A trained network whose softened probabilities a student learns from (Hinton et al. 2015, arXiv:1503.02531).

    ``loss = (1 − share) · cross-entropy + share · T² · KL(teacher at T ‖ student at T)``

    The teacher sees the very batch of the student, mixed and cropped as it is (Beyer et al. 2022, arXiv:2106.05237),
    resized where it was made for another resolution.
    """

    def __init__(self, network: nn.Module, recipe: Recipe, classes: int) -> None:
        architecture = getattr(network, "architecture", None)
        if architecture is not None and architecture.classes != classes:
            raise TrainingError(
                f"the teacher has {architecture.classes} classes and the student {classes}; "
                "a teacher must be trained on the same classes"
            )
        self._network = network.eval()
        self._side: int | None = getattr(architecture, "resolution", None)
        self._temperature = recipe.distillation_temperature
        self._share = recipe.distillation_share

    def loss(self, images: Tensor, logits: Tensor, hard: Tensor) -> Tensor:
        """The student's loss for ``images`` (N, 3, R, R), its ``logits`` (N, C) and its ``hard`` loss by the labels."""
        import torch
        from torch.nn import functional

        with torch.no_grad():
            seen = images
            if self._side is not None and self._side != images.shape[-1]:
                seen = functional.interpolate(images, size=(self._side, self._side), mode="bilinear", antialias=True)
            teachers = functional.log_softmax(self._network(seen) / self._temperature, dim=1)
        students = functional.log_softmax(logits / self._temperature, dim=1)
        soft = functional.kl_div(students, teachers, log_target=True, reduction="batchmean") * self._temperature**2
        return (1 - self._share) * hard + self._share * soft
