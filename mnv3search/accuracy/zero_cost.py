"""Zero-cost evaluators, ``zero_cost:NAME``: a score of each untrained network, to maximise, and no accuracy.

A score takes about a tenth of a second on one thread. Scores are on a logarithmic scale, so that only differences mean
something. All networks take their weights from one long draw of normal numbers, layer after layer: a network costs a
copy instead of a draw, and two networks that begin alike have equal weights there, so that their scores differ less by
chance.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from mnv3search.accuracy.evaluator import Capabilities, Evaluation, parse_numbers
from mnv3search.architecture import Architecture
from mnv3search.blocks import LayerKind
from mnv3search.cost import count
from mnv3search.errors import EvaluatorError, UnknownNameError
from mnv3search.threads import on_one_blas_thread

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mnv3search.network.build import MobileNetwork
    from mnv3search.network.modules import ConvNormActivation
    from mnv3search.training.data.images import LabelledImages

    Layer = Callable[[ConvNormActivation, Tensor], Tensor]


def feature_maps(
    network: MobileNetwork, images: Tensor, layer: Layer, *, skip: frozenset[LayerKind] = frozenset(),
    after_block: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:  # fmt: skip
    """The maps before the global pool, (N, C, H, W), of images (N, 3, R, R).

    Every convolution runs, with its norm and activation, by ``layer``; layers of the kinds ``skip`` are left out;
    ``after_block`` maps what goes from one block to the next.
    """
    from mnv3search.network.modules import ConvNormActivation

    def call(module: nn.Module, maps: Tensor) -> Tensor:
        result: Tensor = layer(module, maps) if isinstance(module, ConvNormActivation) else module(maps)
        return result

    maps = layer(network.stem, images)
    for block in network.blocks:
        maps = block.run(maps, call, skip)  # type: ignore[operator]
        maps = maps if after_block is None else after_block(maps)
    return network.head.run(maps, call, skip | {"pool", "hidden", "classifier"})


POOL = 1 << 22
MIXUP = 0.01
Initialisation = Literal["training", "gaussian"]


def untrained_network(architecture: Architecture, seed: int, initialisation: Initialisation) -> MobileNetwork:
    """The network in training mode, without dropout, with weights from ``seed``; norms are 1 and 0, biases 0.

    ``training``: as training starts (He-normal over the outputs, linear layers by the head's ``linear_std``);
    ``gaussian``: every weight standard normal.
    """
    import torch
    from torch import nn

    from mnv3search.network.build import undrawn_network

    network, drawn = undrawn_network(architecture), 0
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                std = 1.0
                if initialisation == "training":
                    outputs = module.weight.shape[0] * math.prod(module.weight.shape[2:])
                    std = math.sqrt(2 / outputs) if isinstance(module, nn.Conv2d) else architecture.head.linear_std
                _fill(module.weight, drawn, seed)
                drawn += module.weight.numel()
                module.weight.mul_(std)
                if module.bias is not None:
                    module.bias.zero_()
    network.head.dropout.eval()
    return network


def _fill(weight: Tensor, offset: int, seed: int) -> None:
    """Copy the numbers of the draw from ``offset`` on into ``weight``, from the start again where it ends."""
    pool, flat, done = _pool(seed), weight.view(-1), 0
    while done < len(flat):
        start = (offset + done) % POOL
        count = min(len(flat) - done, POOL - start)
        flat[done : done + count] = pool[start : start + count]
        done += count


@lru_cache(maxsize=2)
def _pool(seed: int) -> Tensor:
    import torch

    return torch.randn(POOL, generator=torch.Generator().manual_seed(seed))


@lru_cache(maxsize=4)
def noise(count: int, resolution: int, seed: int) -> Tensor:
    """Standard normal images, (count, 3, resolution, resolution), by another seed than the weights."""
    import torch

    generator = torch.Generator().manual_seed(seed + 2**32)
    return torch.randn(count, 3, resolution, resolution, generator=generator)


def zen(network: MobileNetwork, images: Tensor, others: Tensor) -> float:
    """The Zen-score: how much the maps before the pool change with the input, times what the norms took away.

    ``log E |f(x) - f(x + 0.01 y)| + Σ log √mean(variance)`` over all norms, of a network with standard normal weights
    and without residuals and squeeze-excite. The change is summed over the maps and averaged over images; variances are
    the batch's. Source: Lin et al. 2021 (arXiv:2102.01063), section 3 and its code.
    """
    import torch

    logs: list[float] = []

    def plain(module: ConvNormActivation, maps: Tensor) -> Tensor:
        convolved = module.conv(maps)
        variance = convolved.var(dim=(0, 2, 3), correction=0)
        logs.append(0.5 * math.log(max(float(variance.mean()), 1e-30)))
        return activated(module, convolved)

    def activated(module: ConvNormActivation, maps: Tensor) -> Tensor:
        maps = module.norm(maps)
        return maps if module.activation is None else module.activation(maps)

    def mixed(module: ConvNormActivation, maps: Tensor) -> Tensor:
        return activated(module, module.conv(maps))

    skip: frozenset[LayerKind] = frozenset({"add", "shortcut", "scale"})
    with torch.no_grad():
        maps = feature_maps(network, images, plain, skip=skip)
        mixed_maps = feature_maps(network, images + MIXUP * others, mixed, skip=skip)
        change = float((maps - mixed_maps).abs().sum(dim=(1, 2, 3)).mean())
    return math.log(max(change, 1e-30)) + sum(logs)


def synflow(network: MobileNetwork, resolution: int) -> float:
    """log₁₀ of the synaptic flow: Σ |θ · ∂R/∂θ| over weights, R the summed logits of the network of |weights|.

    The input is one image of ones. Norms and biases are left out; every sum is then positive, where ReLU passes it
    unchanged as hard swish does above 3, and gates are open, so the network is linear. Source: Tanaka et al. 2020
    (arXiv:2006.05467). A factor of 1 after a layer has the derivative Σ θ · ∂R/∂θ of that layer's weights, which spares
    their own gradients. After each block a power of 2 is divided away, so that no depth overflows.

    ``network`` is changed: its weights become positive, in float64, and its biases 0.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    factors: list[Tensor] = []
    exponents: list[int] = []

    def through(module: nn.Module, maps: Tensor) -> Tensor:
        factors.append(torch.ones((), dtype=torch.float64, requires_grad=True))
        product: Tensor = module(maps) * factors[-1]
        return product

    def layer(module: ConvNormActivation, maps: Tensor) -> Tensor:
        return through(module.conv, maps)

    def scaled(maps: Tensor) -> Tensor:
        exponents.append(math.frexp(float(maps.detach().max()))[1])
        return maps * 2.0 ** -exponents[-1]

    network.double().requires_grad_(False)
    for name, parameter in network.named_parameters():
        parameter.abs_() if name.endswith("weight") else parameter.zero_()
    image = torch.ones(1, 3, resolution, resolution, dtype=torch.float64)
    maps = feature_maps(network, image, layer, skip=frozenset({"scale"}), after_block=scaled)
    flow = functional.adaptive_avg_pool2d(maps, 1).flatten(1)
    for linear in network.head.children():
        flow = through(linear, flow) if isinstance(linear, nn.Linear) else flow
    torch.autograd.backward(flow.sum())
    total = sum(float(factor.grad) for factor in factors if factor.grad is not None)
    return _log10(total) + sum(exponents) * math.log10(2)


def gradient_norm(network: MobileNetwork, images: Tensor, labels: Tensor) -> float:
    """log₁₀ of the summed norms of the weights' gradients: Σ ‖∂L/∂W‖₂ over convolutions and linear layers.

    L is the cross-entropy of one batch. Source: Abdelfattah et al. 2021 (arXiv:2101.08134), ``grad_norm``.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    from mnv3search.network.build import prepare_for_training

    prepare_for_training(network)
    loss = functional.cross_entropy(network(images), labels)
    weights = [m.weight for m in network.modules() if isinstance(m, (nn.Conv2d, nn.Linear))]
    gradients = torch.autograd.grad(loss, weights)
    return _log10(sum(float(gradient.norm()) for gradient in gradients))


def _log10(total: float) -> float:
    """Minus infinity of nothing: what a dead network scores, and a search refuses as not finite."""
    return math.log10(total) if total > 0 else -math.inf


OPTIONS: Mapping[str, tuple[int, int]] = MappingProxyType(
    {"images": (2, 512), "resolution": (8, 1024), "repeats": (1, 64), "seed": (0, 2**31 - 1)}
)
"""Each option's range."""


@dataclass(frozen=True, slots=True)
class Probe:
    """What a network is scored on.

    Attributes:
        count: images in the batch.
        resolution: at most; a network of a lower resolution is scored at its own.
        seed: of weights and noise.
        images: real ones to choose from, or None for normal noise with labels in turn.
    """

    count: int
    resolution: int
    seed: int
    images: LabelledImages | None = None

    def side(self, architecture: Architecture) -> int:
        """The resolution for one network."""
        return min(self.resolution, architecture.resolution)

    def batch(self, architecture: Architecture) -> tuple[Tensor, Tensor]:
        """Images (N, 3, R, R) and labels (N,)."""
        import torch

        from mnv3search.training.data.batches import Batches
        from mnv3search.training.data.preprocessing import Preprocessing
        from mnv3search.training.data.splits import stable_subset

        side, images = self.side(architecture), self.images
        if images is None:
            return noise(self.count, side, self.seed), torch.arange(self.count) % architecture.classes
        chosen = stable_subset(images, min(len(images), max(self.count, len(images.classes))), "zero cost")
        # evenly over the classes
        indices = {round(i * (len(chosen) - 1) / max(self.count - 1, 1)) for i in range(self.count)}
        batch = next(iter(Batches(chosen.subset(sorted(indices)), Preprocessing(side), self.count).epoch(0)))
        return batch.images, batch.labels


def _zen(architecture: Architecture, probe: Probe) -> float:
    images = noise(2 * probe.count, probe.side(architecture), probe.seed)
    network = untrained_network(architecture, probe.seed, "gaussian")
    return zen(network, images[: probe.count], images[probe.count :])


def _synflow(architecture: Architecture, probe: Probe) -> float:
    return synflow(untrained_network(architecture, probe.seed, "training"), probe.side(architecture))


def _gradient_norm(architecture: Architecture, probe: Probe) -> float:
    return gradient_norm(untrained_network(architecture, probe.seed, "training"), *probe.batch(architecture))


def _parameters(architecture: Architecture, probe: Probe) -> float:
    return math.log10(count(architecture).parameters)


def _madds(architecture: Architecture, probe: Probe) -> float:
    return math.log10(count(architecture).madds)


@dataclass(frozen=True, slots=True)
class _Score:
    """How a score is computed, its own number of images and resolution, and whether it costs next to nothing.

    Resolutions are the least at which a network of 224 px is still ordered about as well as at twice as much
    (``benchmarks/evaluators.py``): building the network is then most of the cost.
    """

    compute: Callable[[Architecture, Probe], float]
    label: str
    images: int = 2
    resolution: int = 32
    cheap: bool = False


SCORES: Mapping[str, _Score] = MappingProxyType(
    {
        "zen": _Score(_zen, "Zen-score", images=8),
        "synflow": _Score(_synflow, "synflow, log₁₀", resolution=64),
        "gradient_norm": _Score(_gradient_norm, "gradient norm, log₁₀", images=16),
        "parameters": _Score(_parameters, "parameters, log₁₀", cheap=True),
        "madds": _Score(_madds, "MAdds, log₁₀", cheap=True),
    }
)


class ZeroCost:
    """Scores untrained networks; higher is better, and no score is an accuracy.

    The same network gets the same score each time, in whatever batch, on one machine with one version of torch.
    """

    def __init__(
        self, score: str, *, images: int | None = None, resolution: int | None = None, repeats: int = 1, seed: int = 0,
        data: LabelledImages | None = None,
    ) -> None:  # fmt: skip
        """A score of :data:`SCORES`, the mean over ``repeats`` draws of weights.

        Args:
            score: its name.
            images: in a batch; each score's own number where None.
            resolution: of them at most; each score's own where None. A network of a lower one is scored at its own.
            repeats: draws of weights.
            seed: of weights and noise.
            data: real images for gradient_norm; noise where None.
        """
        if score not in SCORES:
            raise UnknownNameError("zero-cost score", score, SCORES)
        self.score = score
        how = SCORES[score]
        self._compute = how.compute
        shown = images or how.images, resolution or how.resolution
        identity = f"zero_cost:{score} with images, resolution, repeats, seed {(*shown, repeats, seed)}"
        if data is not None:
            files = "\0".join(data.files).encode("utf-8", "surrogateescape")
            identity += f" on {hashlib.blake2b(files, digest_size=8).hexdigest()}"
        self.capabilities = Capabilities(cheap=how.cheap, score_name=how.label, identity=identity)
        self._probes = [Probe(*shown, seed + repeat, data) for repeat in range(repeats)]

    @on_one_blas_thread
    def evaluate(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
        """The score of each, rounded to 1e-6; EvaluatorError where it is not finite."""
        return [Evaluation(self._mean(architecture)) for architecture in architectures]

    def _mean(self, architecture: Architecture) -> float:
        mean = round(sum(self._compute(architecture, probe) for probe in self._probes) / len(self._probes), 6)
        if not math.isfinite(mean):
            raise EvaluatorError(
                f"the zero-cost score {self.score} is {mean} for {architecture}: it cannot order such networks; "
                "choose another score"
            )
        return mean


def zero_cost(text: str, data: LabelledImages | None = None) -> ZeroCost:
    """The evaluator of ``zen`` or ``zen,images=64,seed=1``."""
    name, _, options = text.partition(",")
    if not name:
        raise EvaluatorError(f"zero_cost needs a score: give zero_cost: and one of {', '.join(SCORES)}")
    return ZeroCost(name, data=data, **parse_numbers(options, OPTIONS, f"zero_cost:{name}"))
