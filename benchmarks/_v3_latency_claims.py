"""What the MobileNetV3 paper says of latency, as pairs of networks and published ratios; nothing is measured here."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from mnv3search.architecture import Architecture, HeadSpec, StemSpec
from mnv3search.blocks import BlockSpec, SqueezeExciteSpec
from mnv3search.families import parse_network, published
from mnv3search.families.figures import PublishedFigure, published_figures
from mnv3search.families.rows import paper_squeeze_excite

LARGE, SMALL = "mobilenet_v3_large", "mobilenet_v3_small"
PAPER, README = "arXiv:1905.02244", "tensorflow/models mobilenet/README.md"
WIDTHS, RESOLUTIONS = (1.25, 0.75, 0.5, 0.35), (256, 192, 160, 128, 96)
NAIVE = "v5-unoptimised"


@dataclass(frozen=True, slots=True)
class PaperRatio:
    """One published ratio of two latencies.

    Attributes:
        device: ``Pixel 1`` to ``Pixel 3``.
        version: the campaign, as in ``families/published.csv``; both latencies are of it.
        value: the network's latency over the base's.
    """

    device: str
    version: str
    value: float


@dataclass(frozen=True, slots=True)
class Claim:
    """A network against another, and what was published of the two.

    Attributes:
        group: the heading under which it is shown.
        text: the network and the base in words.
        network, base: as :func:`architecture_of` reads them.
        paper: published ratios, none where the paper gives no latency.
        said: how the paper words it, where it does.
    """

    group: str
    text: str
    network: str
    base: str
    paper: tuple[PaperRatio, ...] = ()
    said: str = ""


def original_last_stage() -> Architecture:
    """V3-Large with the left side of the paper's Figure 5.

    160 → 1×1 960 → depthwise 3×3 → 1×1 320 → 1×1 1280 → pool → classifier, in place of
    160 → 1×1 960 → pool → 1×1 1280 → classifier.
    """
    large = published(LARGE)
    last = BlockSpec(3, 960, 320, activation="hard_swish")
    return replace(large, blocks=(*large.blocks, last), head=HeadSpec(1280))


def wide_stem() -> Architecture:
    """V3-Large with 32 filters and ReLU in the stem, and so in the first depthwise convolution."""
    large = published(LARGE)
    first = replace(large.blocks[0], expanded_channels=32)
    return replace(large, stem=StemSpec(32, activation="relu"), blocks=(first, *large.blocks[1:]))


def without_se() -> Architecture:
    """V3-Large without squeeze-excite."""
    return published(LARGE).map_blocks(lambda block: replace(block, squeeze_excite=None))


def se_everywhere() -> Architecture:
    """V3-Large with the paper's squeeze-excite in all 15 blocks; it has 8."""
    return published(LARGE).map_blocks(
        lambda block: replace(block, squeeze_excite=paper_squeeze_excite(block.expanded_channels))
    )


def se_of_input() -> Architecture:
    """V3-Large with MnasNet's smaller squeeze: a quarter of the block's input, not of its expansion."""
    large = published(LARGE)
    blocks = []
    for block, channels in zip(large.blocks, large.in_channels(), strict=True):
        small = SqueezeExciteSpec(channels // 4, relative_to="input", divisor=1)
        blocks.append(replace(block, squeeze_excite=small) if block.squeeze_excite else block)
    return replace(large, blocks=tuple(blocks))


ALTERED: dict[str, Callable[[], Architecture]] = {
    "large, original last stage": original_last_stage,
    "large, stem of 32 with ReLU": wide_stem,
    "large, no SE": without_se,
    "large, SE in every block": se_everywhere,
    "large, squeeze of the input": se_of_input,
}


def architecture_of(name: str) -> Architecture:
    """A key of :data:`ALTERED`, or what ``parse_network`` reads."""
    return ALTERED[name]() if name in ALTERED else parse_network(name)


def published_ratios(
    network: str, base: str, source: str, version: str = "v5", base_source: str = ""
) -> tuple[PaperRatio, ...]:
    """The ratio on each Pixel for which ``source`` (the base's own, where given) prints both latencies.

    Raises:
        ValueError: the source does not have one row of each network in this version.
    """
    above, below = _row(network, source, version), _row(base, base_source or source, version)
    pairs = (
        ("Pixel 1", above.pixel1_ms, below.pixel1_ms),
        ("Pixel 2", above.pixel2_ms, below.pixel2_ms),
        ("Pixel 3", above.pixel3_ms, below.pixel3_ms),
    )
    return tuple(PaperRatio(device, version, a / b) for device, a, b in pairs if a and b)


def _row(network: str, source: str, version: str) -> PublishedFigure:
    rows = [f for f in published_figures() if (f.network, f.source, f.version) == (network, source, version)]
    if len(rows) != 1:
        raise ValueError(f"{source} ({version}) has {len(rows)} rows of {network}; one is needed")
    return rows[0]


def claims() -> list[Claim]:
    """All of them, in the order in which they are shown."""
    return [*_whole(), *_redesign(), *_hard_swish(), *_squeeze_excite(), *_multipliers()]


def _whole() -> list[Claim]:
    group, source = "Whole networks", f"{PAPER} Table 3"
    pairs = (
        ("V3-Large against V2 1.0", LARGE, "mobilenet_v2"),
        ("V3-Large against MnasNet-A1", LARGE, "mnasnet_a1"),
        ("V3-Small against V2 0.35", SMALL, "mobilenet_v2@0.35"),
        ("V3-Small against MnasNet-small", SMALL, "mnasnet_small"),
    )
    found = [Claim(group, text, a, b, published_ratios(a, b, source)) for text, a, b in pairs]
    for size, name in (("Large", LARGE), ("Small", SMALL)):
        plain = f"{name}_minimalistic"
        text = f"V3-{size} minimalistic (3×3, ReLU, no SE) against V3-{size}"
        found.append(Claim(group, text, plain, name, published_ratios(plain, name, README)))
    return found


def _redesign() -> list[Claim]:
    group = "Redesigned layers"
    last, stem = PaperRatio("Pixel 1", "v5", 1 - 0.11), PaperRatio("Pixel 1", "v5", 51 / (51 + 2))
    return [
        Claim(
            group, "efficient last stage against the original (Figure 5)", LARGE, "large, original last stage",
            (last,), "7 ms, 11 % of the running time, 30 M MAdds",
        ),
        Claim(
            group, "stem of 16 with h-swish against 32 with ReLU", LARGE, "large, stem of 32 with ReLU", (stem,),
            "2 ms (taken as 53 to 51), 10 M MAdds",
        ),
    ]  # fmt: skip


def _hard_swish() -> list[Claim]:
    source, base = f"{PAPER} Table 5", f"{LARGE}_relu"
    which = (
        ("from 112 channels on", f"{LARGE}_hswish112"),
        ("from 80 channels on (V3-Large)", LARGE),
        ("everywhere", f"{LARGE}_hswish16"),
    )
    return [
        Claim(
            "h-swish", f"h-swish {text} against ReLU everywhere", name, base,
            (*published_ratios(name, base, source), *published_ratios(name, base, source, NAIVE)),
        )
        for text, name in which
    ]  # fmt: skip


def _squeeze_excite() -> list[Claim]:
    group = "Squeeze-excite"
    same = PaperRatio("Pixel 1", "v5", 1.0)
    return [
        Claim(
            group, "squeeze of a quarter of the expansion against a quarter of the input", LARGE,
            "large, squeeze of the input", (same,), "no discernible latency cost",
        ),
        Claim(group, "SE in 8 of 15 blocks (V3-Large) against none", LARGE, "large, no SE"),
        Claim(group, "SE in all blocks against 8 of 15 (V3-Large)", "large, SE in every block", LARGE),
    ]  # fmt: skip


def _multipliers() -> list[Claim]:
    unscaled = f"{PAPER} width multipliers"
    found = []
    for kind, suffixes in (("width", [f"@{w}" for w in WIDTHS]), ("resolution", [f"/{r}" for r in RESOLUTIONS])):
        for size, name in (("Large", LARGE), ("Small", SMALL)):
            early = f"{name}_preprint"
            for suffix in suffixes:
                paper = published_ratios(early + suffix, early, f"{PAPER} {kind} multipliers", "v1", unscaled)
                if suffix == "@0.75":
                    paper += published_ratios(name + suffix, name, README)
                text = f"V3-{size}, {kind} {suffix[1:]}"
                found.append(Claim(f"{kind.capitalize()} multipliers", text, name + suffix, name, paper))
    return found


def networks_of(some: Sequence[Claim]) -> list[str]:
    """Every network that the claims need, once each, in their order."""
    return list(dict.fromkeys(name for claim in some for name in (claim.network, claim.base)))
