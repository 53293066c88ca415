"""What tests of training stand on: a tiny network, images in memory that it learns in a second, a brief recipe."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from image_fakes import striped
from numpy.typing import NDArray

from mnv3search.architecture import Architecture, HeadSpec, StemSpec
from mnv3search.blocks import BlockSpec, SqueezeExciteSpec
from mnv3search.network.build import MobileNetwork, build_network
from mnv3search.training.data.augmentation import Augmentation
from mnv3search.training.data.images import LabelledImages
from mnv3search.training.data.preprocessing import Preprocessing
from mnv3search.training.recipe import Recipe

SIDE = 12
PREPROCESSING = Preprocessing(SIDE)
TINY = Architecture(
    stem=StemSpec(8),
    blocks=(
        BlockSpec(3, 16, 8, squeeze_excite=SqueezeExciteSpec(8)),
        BlockSpec(5, 16, 16, stride=2, activation="hard_swish"),
    ),
    head=HeadSpec(feature_channels=24, hidden_channels=16, dropout=0.2),
    resolution=SIDE,
    classes=3,
)
RECIPE = Recipe(
    epochs=3, batch_size=8, optimizer="sgd", learning_rate=0.1, reference_batch=8, nesterov=True, weight_decay=1e-4,
    warmup_epochs=0.5, label_smoothing=0.1, ema_decay=0.9, norm_momentum=0.1,
    augmentation=Augmentation(crop="pad", pad=1, flip=True, mixup=0.2), name="brief",
)  # fmt: skip


@dataclass(eq=False)
class MemorySource:
    """Striped images, drawn by their names ``SEED/LABEL/NUMBER``."""

    name: str = "stripes"
    side: int = SIDE

    def read(self, file: str) -> NDArray[np.uint8]:
        seed, label, number = map(int, file.split("/"))
        return striped(label, self.side, np.random.default_rng((seed, label, number)))


def images(per_class: int = 16, classes: int = 3, seed: int = 0, side: int = SIDE) -> LabelledImages:
    files = tuple(f"{seed}/{label}/{number}" for label in range(classes) for number in range(per_class))
    labels = np.repeat(np.arange(classes), per_class).astype(np.int64)
    return LabelledImages(MemorySource(side=side), files, labels, tuple(f"class_{c}" for c in range(classes)))


def splits() -> tuple[LabelledImages, LabelledImages]:
    return images(16, seed=1), images(8, seed=2)


def tiny_network(seed: int = 0, **changes: Any) -> MobileNetwork:
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        return build_network(replace(TINY, **changes))


def weights_of(network: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def same_weights(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(tensor, other[name]) for name, tensor in one.items())
