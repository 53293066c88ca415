"""From an architecture (a value) to a network (a module)."""

from __future__ import annotations

from torch import Tensor, nn

from mnv3search.architecture import Architecture, check_architecture
from mnv3search.network.layers import Conventions, ConvNormActivation, Head, InvertedResidual


class MobileNetwork(nn.Module):
    """The module of one architecture: ``stem``, ``blocks`` and ``head``, registered in the order in which they run.

    Attributes:
        architecture: the value that it was built from.
    """

    def __init__(self, architecture: Architecture) -> None:
        super().__init__()
        self.architecture = architecture
        conventions, stem = Conventions.of(architecture), architecture.stem
        self.stem = ConvNormActivation(
            3, stem.out_channels, conventions, kernel_size=stem.kernel_size, stride=stem.stride,
            activation=stem.activation,
        )  # fmt: skip
        blocks = zip(architecture.blocks, architecture.in_channels(), strict=True)
        self.blocks = nn.Sequential(*(InvertedResidual(channels, block, conventions) for block, channels in blocks))
        last = architecture.blocks[-1].out_channels
        self.head = Head(last, architecture.head, architecture.classes, conventions)

    def forward(self, images: Tensor) -> Tensor:
        """Maps images (N, 3, H, W) of any size to logits (N, classes)."""
        logits: Tensor = self.head(self.blocks(self.stem(images)))
        return logits


def build_network(architecture: Architecture) -> MobileNetwork:
    """The network of ``architecture``, in training mode, freshly initialised from torch's global generator.

    Convolutions are He-normal over their outputs, norms 1 and 0, linear layers normal with the head's ``linear_std``,
    biases 0 (as torchvision and the papers' code do).

    Raises:
        ArchitectureError: ``architecture`` is none, but a name or a list, say.
    """
    check_architecture(architecture)
    network = MobileNetwork(architecture)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, 0.0, architecture.head.linear_std)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    return network
