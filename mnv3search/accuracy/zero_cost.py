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
from functools import lru_cache, partial
from types import MappingProxyType
from typing import TYPE_CHECKING, Literal

from mnv3search.accuracy.evaluator import Capabilities, Evaluation, WholeNumber, parse_numbers
from mnv3search.architecture import Architecture, LayerKind
from mnv3search.cost import count
from mnv3search.errors import EvaluatorError, UnknownNameError
from mnv3search.threads import on_one_blas_thread

if TYPE_CHECKING:
    from torch import Tensor, nn

    from mnv3search.network.build import MobileNetwork
    from mnv3search.network.modules import ConvNormActivation
    from mnv3search.training.data.images import LabelledImages

if TYPE_CHECKING:
    Layer = Callable[[ConvNormActivation, Tensor], Tensor]


def feature_maps(
    network: MobileNetwork, images: Tensor, layer: Layer, *, residuals: bool = True, gates: bool = True,
    after_block: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:  # fmt: skip
    """The maps before the global pool, (N, C, H, W): the network's own forward pass with every layer by ``layer``.

    Args:
        network: in training mode, so that norms use the batch.
        images: (N, 3, R, R).
        layer: runs one convolution with its norm and activation.
        residuals: whether blocks add their input.
        gates: whether squeeze-excite scales channels.
        after_block: what is done with the maps between two blocks.
    """
    from mnv3search.network.modules import ConvNormActivation

    def call(module: nn.Module, maps: Tensor) -> Tensor:
        result: Tensor = layer(module, maps) if isinstance(module, ConvNormActivation) else module(maps)
        return result

    skip: frozenset[LayerKind] = frozenset()
    if not residuals:
        skip |= {"add", "shortcut"}
    if not gates:
        skip |= {"scale"}
    maps = layer(network.stem, images)
    for block in network.blocks:
        maps = block.run(maps, call, skip)  # type: ignore[operator]
        maps = maps if after_block is None else after_block(maps)
    return network.head.run(maps, call, skip | {"pool", "hidden", "classifier"})


POOL = 1 << 22
Initialisation = Literal["training", "gaussian"]


def untrained_network(architecture: Architecture, seed: int, initialisation: Initialisation) -> MobileNetwork:
    """The network in training mode, without dropout, with weights from ``seed``; norms are 1 and 0, biases 0.

    ``training``: as training starts (He-normal over the outputs, linear layers by the head's ``linear_std``);
    ``gaussian``: every weight standard normal.
    """
    import torch
    from torch import nn

    from mnv3search.network.build import undrawn_network

    network, place = undrawn_network(architecture), 0
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, (nn.Conv2d, nn.Linear)):
                std = 1.0
                if initialisation == "training":
                    outputs = module.weight.shape[0] * math.prod(module.weight.shape[2:])
                    std = math.sqrt(2 / outputs) if isinstance(module, nn.Conv2d) else architecture.head.linear_std
                _fill(module.weight, place, seed)
                place += module.weight.numel()
                module.weight.mul_(std)
                if module.bias is not None:
                    module.bias.zero_()
    network.head.dropout.eval()
    return network


def _fill(weight: Tensor, place: int, seed: int) -> None:
    """Copy the draw from ``place`` on into ``weight``, from the start again where it ends."""
    pool, flat, done = _pool(seed), weight.view(-1), 0
    while done < len(flat):
        start = (place + done) % POOL
        count = min(len(flat) - done, POOL - start)
        flat[done : done + count] = pool[start : start + count]
        done += count


@lru_cache(maxsize=2)
def _pool(seed: int) -> Tensor:
    import torch

    return torch.randn(POOL, generator=torch.Generator().manual_seed(seed))


@lru_cache(maxsize=4)
def noise(count: int, resolution: int, seed: int) -> Tensor:
    """Standard normal images, (count, 3, resolution, resolution), not those that the weights are drawn from."""
    import torch

    generator = torch.Generator().manual_seed(seed + 2**32)
    return torch.randn(count, 3, resolution, resolution, generator=generator)


MIXUP = 0.01


def naswot(network: MobileNetwork, images: Tensor) -> float:
    """The naswot score, log |det K| of the codes of ``images``: how well the untrained network tells them apart.

    A code has a bit for each unit before an activation, 1 where it is above 0; K[i, j] counts the bits in which images
    i and j agree. Hard swish has no single bend as ReLU has; its sign is taken likewise. The few units within
    squeeze-excite are left out. Source: Mellor et al. 2021 (arXiv:2006.04647), equation 2.
    """
    import torch
    from torch.nn import functional

    agreement = torch.zeros(len(images), len(images), dtype=torch.float64)

    def record(units: Tensor) -> None:
        # of signs ±1 the product is agreements less disagreements
        signs = (units.flatten(1) > 0).float().mul_(2).sub_(1)
        agreement.add_((signs @ signs.T).double().add_(signs.shape[1]).div_(2))

    def layer(module: ConvNormActivation, maps: Tensor) -> Tensor:
        maps = module.norm(module.conv(maps))
        if module.activation is None:
            return maps
        record(maps)
        activated: Tensor = module.activation(maps)
        return activated

    with torch.no_grad():
        pooled = functional.adaptive_avg_pool2d(feature_maps(network, images, layer), 1).flatten(1)
        modules = dict(network.head.named_children())
        if "hidden" in modules:
            hidden = modules["hidden"](pooled)
            record(modules["hidden_norm"](hidden) if "hidden_norm" in modules else hidden)
        return float(torch.linalg.slogdet(agreement).logabsdet)


def zen(network: MobileNetwork, images: Tensor, others: Tensor) -> float:
    """The Zen-score: how much the maps before the pool change with the input, times what the norms took away.

    ``log E |f(x) - f(x + 0.01 y)| + Σ log √mean(variance)`` over all norms, of a network with standard normal weights
    and without residuals and squeeze-excite. The change is summed over the maps and averaged over images; variances are
    the batch's. Source: Lin et al. 2021 (arXiv:2102.01063), section 3 and its code.
    """
    import torch

    logs: list[float] = []

    def layer(module: ConvNormActivation, maps: Tensor) -> Tensor:
        return after(module, module.conv(maps))

    def measured(module: ConvNormActivation, maps: Tensor) -> Tensor:
        maps = module.conv(maps)
        variance = maps.var(dim=(0, 2, 3), correction=0)
        logs.append(0.5 * math.log(max(float(variance.mean()), 1e-30)))
        return after(module, maps)

    def after(module: ConvNormActivation, maps: Tensor) -> Tensor:
        maps = module.norm(maps)
        return maps if module.activation is None else module.activation(maps)

    with torch.no_grad():
        plain = feature_maps(network, images, measured, residuals=False, gates=False)
        mixed = feature_maps(network, images + MIXUP * others, layer, residuals=False, gates=False)
        change = float((plain - mixed).abs().sum(dim=(1, 2, 3)).mean())
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
    maps = feature_maps(network, image, layer, gates=False, after_block=scaled)
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


OPTIONS: Mapping[str, WholeNumber] = MappingProxyType(
    {
        "images": WholeNumber(None, 2, 512),
        "resolution": WholeNumber(None, 8, 1024),
        "repeats": WholeNumber(1, 1, 64),
        "seed": WholeNumber(0, 0, 2**31 - 1),
    }
)


@dataclass(frozen=True, slots=True)
class Probe:
    """What a network is shown.

    Attributes:
        count: images in the batch.
        resolution: at most; a network of a lower resolution is shown its own.
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

        side = self.side(architecture)
        if self.images is None:
            return noise(self.count, side, self.seed), torch.arange(self.count) % architecture.classes
        return _real(self.images, self.count, side)


def _real(images: LabelledImages, count: int, side: int) -> tuple[Tensor, Tensor]:
    from mnv3search.training.data.batches import Batches
    from mnv3search.training.data.preprocessing import Preprocessing
    from mnv3search.training.data.splits import stable_subset

    chosen = stable_subset(images, min(len(images), max(count, len(images.classes))), "zero cost")
    # as many of each class as there are: the batch is every so-manieth of them
    places = [round(i * (len(chosen) - 1) / max(count - 1, 1)) for i in range(count)]
    batch = next(iter(Batches(chosen.subset(sorted(set(places))), Preprocessing(side), count).epoch(0)))
    return batch.images, batch.labels


def _score_naswot(architecture: Architecture, probe: Probe) -> float:

    return naswot(untrained_network(architecture, probe.seed, "training"), probe.batch(architecture)[0])


def _score_zen(architecture: Architecture, probe: Probe) -> float:

    images = noise(2 * probe.count, probe.side(architecture), probe.seed)
    network = untrained_network(architecture, probe.seed, "gaussian")
    return zen(network, images[: probe.count], images[probe.count :])


def _score_synflow(architecture: Architecture, probe: Probe) -> float:

    return synflow(untrained_network(architecture, probe.seed, "training"), probe.side(architecture))


def _score_gradient_norm(architecture: Architecture, probe: Probe) -> float:

    return gradient_norm(untrained_network(architecture, probe.seed, "training"), *probe.batch(architecture))


def _parameters(architecture: Architecture, probe: Probe) -> float:
    return math.log10(count(architecture).parameters)


def _madds(architecture: Architecture, probe: Probe) -> float:
    return math.log10(count(architecture).madds)


@dataclass(frozen=True, slots=True)
class _Score:
    """How a score is computed, what it is shown unless told, and whether it costs nothing to speak of.

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
        "naswot": _Score(_score_naswot, "naswot, log |det K|", images=16),
        "zen": _Score(_score_zen, "Zen-score", images=8),
        "synflow": _Score(_score_synflow, "synflow, log₁₀", resolution=64),
        "gradient_norm": _Score(_score_gradient_norm, "gradient norm, log₁₀", images=16),
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
        """Make one.

        Args:
            score: one of :data:`SCORES`.
            images: in the batch that a network is shown; each score's own where None.
            resolution: of them at most; each score's own where None. A network of a lower one is shown its own.
            repeats: how many draws of weights the score is the mean of.
            seed: of weights and noise.
            data: real images for naswot and gradient_norm; noise where None.

        Raises:
            UnknownNameError: no such score.
        """
        if score not in SCORES:
            raise UnknownNameError("zero-cost score", score, SCORES)
        self.score = score
        self._how = SCORES[score]
        shown = images or self._how.images, resolution or self._how.resolution, repeats, seed
        identity = f"zero_cost:{score} with images, resolution, repeats, seed {shown}"
        if data is not None:
            files = "\0".join(data.files).encode("utf-8", "surrogateescape")
            identity += f" on {hashlib.blake2b(files, digest_size=8).hexdigest()}"
        self.capabilities = Capabilities(cheap=self._how.cheap, score_name=self._how.label, identity=identity)
        self._probes = [
            Probe(images or self._how.images, resolution or self._how.resolution, seed + repeat, data)
            for repeat in range(repeats)
        ]

    @on_one_blas_thread
    def evaluate(self, architectures: Sequence[Architecture]) -> list[Evaluation]:
        """The score of each, rounded to 1e-6.

        Raises:
            EvaluatorError: a score that is not finite.
        """
        return [Evaluation(self._mean(architecture)) for architecture in architectures]

    def _mean(self, architecture: Architecture) -> float:
        found = [self._how.compute(architecture, probe) for probe in self._probes]
        mean = round(sum(found) / len(found), 6)
        if not math.isfinite(mean):
            raise EvaluatorError(
                f"the zero-cost score {self.score} is {mean} for {architecture}: it cannot order such networks; "
                "choose another score"
            )
        return mean


def zero_cost(text: str, data: LabelledImages | None = None) -> ZeroCost:
    """The evaluator of ``naswot`` or ``naswot,images=64,seed=1``.

    Raises:
        UnknownNameError: no such score or option.
        EvaluatorError: no score is named, or an option is out of its range.
    """
    name, _, options = text.partition(",")
    if not name:
        raise EvaluatorError(f"zero_cost needs a score: give zero_cost: and one of {', '.join(SCORES)}")
    make = partial(ZeroCost, name, data=data)
    return make(**parse_numbers(options, OPTIONS, f"zero_cost:{name}"))  # type: ignore[arg-type]
