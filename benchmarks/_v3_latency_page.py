"""Published ratios against measured ones: what each comparison comes to, and the page that shows all of them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, Literal

from benchmarks._v3_latency_claims import NAIVE, Claim
from mnv3search.latency.measured.whole_networks import Ratio

Verdict = Literal["alike", "weaker", "stronger", "not seen", "opposite", "slower", "faster", "not published"]

NEAR = math.log(1.02)  # closer than campaigns and single preparations of one network come to one another
NOTHING = math.log(1.005)  # a published ratio so near to 1 says that nothing changes
ALIKE = 1.5
MEANING = """\
- *(nothing)*: alike. A published ratio lies in the interval or within 2 % of the measured one, or the measured effect
  is between 2/3 and 3/2 of the published one;
- **weaker**, **stronger**: the same direction, less than 2/3 or more than 3/2 of the effect;
- **not seen**: the paper has a difference, here the interval contains 1;
- **opposite**: the other direction;
- **slower**, **faster**: here something changes, while the paper says that nothing does, or has it one way on one phone
  and the other way on another."""


def verdict(here: Ratio, paper: Sequence[float]) -> Verdict:
    """What a measured ratio says of published ones, all of the same claim; :data:`MEANING` explains it."""
    if not paper:
        return "not published"
    logs = sorted(math.log(value) for value in paper)
    said, found = logs[len(logs) // 2], math.log(here.value)
    if any(here.low <= value <= here.high for value in paper) or min(abs(found - one) for one in logs) <= NEAR:
        return "alike"
    if logs[0] < NOTHING and logs[-1] > -NOTHING:
        return "slower" if found > 0 else "faster"
    if here.low <= 1 <= here.high:
        return "not seen"
    share = found / said
    if share < 0:
        return "opposite"
    return "weaker" if share < 1 / ALIKE else "stronger" if share > ALIKE else "alike"


def judged(claim: Claim) -> list[float]:
    """The published ratios that a verdict is about: those with the optimised h-swish kernel."""
    return [one.value for one in claim.paper if one.version != NAIVE]


def page(claims: Sequence[Claim], numbers: Mapping[str, Any]) -> str:
    """The results as Markdown: what was done, where this machine disagrees, every claim."""
    runtimes = list(numbers["runtimes"])
    parts = [_introduction(numbers), "", "## Where this machine disagrees with the paper", ""]
    parts += [*_alike_by_group(claims, numbers), "", *disagreements(claims, numbers), "", "## All claims"]
    found = {(one["network"], one["base"]): one for one in numbers["claims"]}
    for group, some in groupby(claims, key=lambda claim: claim.group):
        parts += ["", f"### {group}", "", *NOTES.get(group, ()), *_header(runtimes)]
        parts += [_row(claim, found[claim.network, claim.base], runtimes) for claim in some]
    return "\n".join([*parts, "", "## The networks' own latencies", "", *_latencies(numbers)])


NOTES: Mapping[str, Sequence[str]] = {
    "Redesigned layers": [
        "The MAdds here are counted; where they differ from the paper's 30 M, the paper does not say what it counted.",
        "",
    ],
    "h-swish": ["*naive*: the paper's column without its optimised kernel, which no verdict is about.", ""],
    "Squeeze-excite": [
        "No latency of V3-Large without squeeze-excite was published; the second and third row are this machine's own.",
        "",
    ],
    "Width multipliers": [
        "All against width 1.0. A network gains less than its MAdds where part of a call does not shrink with them: "
        "starting each layer, reading the weights, channels that no longer fill the vector units.",
        "",
    ],
    "Resolution multipliers": ["All against 224.", ""],
}


def _introduction(numbers: Mapping[str, Any]) -> str:
    sessions = "; ".join(
        f"{name} {one['version']}: {one['rounds']} rounds, by {100 * one['preparation_std']:.1f} %"
        for name, one in numbers["runtimes"].items()
    )
    return f"""\
# MobileNetV3's claims about latency, on this machine

*Searching for MobileNetV3* (Howard et al. 2019) timed its networks on Pixel phones with TensorFlow Lite, in fp32, on
one thread, at batch 1. Here the same networks run on a desktop or server CPU (`manifest.json` names it), in fp32, on
one thread and at batch 1 as well, in several runtimes. Milliseconds of such different machines cannot be compared,
ratios can: **each figure is the latency of the first network divided by that of the second**, below 1 where the first
is faster.

All {numbers["networks"]} networks took turns in every round of a runtime, each twice: prepared anew, one network is not
quite as fast as before ({sessions}).
A ratio is the median over the rounds of the two networks' times in the same round; in brackets is its 95 % interval,
which allows for both. The paper's ratios come from the latencies that its tables print (rounded, without intervals):
*v1* is the first preprint, *v5* the final version or the authors' README.

Behind a figure stands how it compares with the published one:

{MEANING}

The effect is the logarithm of the ratio."""


def disagreements(claims: Sequence[Claim], numbers: Mapping[str, Any]) -> list[str]:
    """One line for every claim that at least one runtime contradicts or changes, and one that counts them."""
    lines, compared, alike = [], 0, 0
    for claim, found in zip(claims, numbers["claims"], strict=True):
        here = found["here"]
        if not judged(claim):
            continue
        compared += len(here)
        differing = {name: one for name, one in here.items() if one["verdict"] != "alike"}
        alike += len(here) - len(differing)
        if differing:
            each = ", ".join(f"{one['verdict']} in {name} ({one['ratio']:.2f})" for name, one in differing.items())
            lines.append(f"- {claim.text}: paper {_span(judged(claim))}; {each}")
    return [f"{alike} of {compared} comparisons with the paper are alike; the others:", "", *lines]


def _alike_by_group(claims: Sequence[Claim], numbers: Mapping[str, Any]) -> list[str]:
    """How many claims of each group are alike in each runtime, as a table."""
    runtimes = list(numbers["runtimes"])
    lines = ["| alike | " + " | ".join(runtimes) + " |", "|" + "---|" * (1 + len(runtimes))]
    pairs = [(claim, one) for claim, one in zip(claims, numbers["claims"], strict=True) if judged(claim)]
    for group, some in groupby(pairs, key=lambda pair: pair[0].group):
        found = [[one["here"][name]["verdict"] == "alike" for name in runtimes] for _, one in some]
        cells = [f"{sum(column)} of {len(column)}" for column in zip(*found, strict=True)]
        lines.append("| " + " | ".join([group, *cells]) + " |")
    return lines


def _span(values: Sequence[float]) -> str:
    low, high = f"{min(values):.2f}", f"{max(values):.2f}"
    return low if low == high else f"{low} to {high}"


def _header(runtimes: Sequence[str]) -> list[str]:
    names = ["claim", "MAdds", "paper", *runtimes]
    return ["| " + " | ".join(names) + " |", "|" + "---|" * len(names)]


def _row(claim: Claim, found: Mapping[str, Any], runtimes: Sequence[str]) -> str:
    change = f"{(found['madds'] - found['base_madds']) / 1e6:+.1f} M ({found['madds'] / found['base_madds']:.2f})"
    cells = [claim.text, change, _paper(claim), *(_here(found["here"][name]) for name in runtimes)]
    return "| " + " | ".join(cells) + " |"


def _paper(claim: Claim) -> str:
    if not claim.paper:
        return "–"
    versions = {one.version for one in claim.paper}
    texts = [claim.said] if claim.said else []
    for version in sorted(versions):
        some = [one for one in claim.paper if one.version == version]
        label = "v5 naive" if version == NAIVE else version
        texts.append(f"{', '.join(f'{one.value:.2f}' for one in some)} ({_devices(some)}, {label})")
    return "; ".join(texts)


def _devices(some: Sequence[Any]) -> str:
    digits = ", ".join(one.device.removeprefix("Pixel ") for one in some)
    return f"Pixel {digits}"


def _here(one: Mapping[str, Any]) -> str:
    text = f"{one['ratio']:.3f} [{one['low']:.3f}, {one['high']:.3f}]"
    return text if one["verdict"] in ("alike", "not published") else f"{text} **{one['verdict']}**"


def _latencies(numbers: Mapping[str, Any]) -> list[str]:
    runtimes = numbers["runtimes"]
    lines = [f"| network | MAdds | {' | '.join(runtimes)} |", "|" + "---|" * (2 + len(runtimes))]
    for name, madds in numbers["madds"].items():
        each = [f"{one['latency_ms'][name]:.2f} ms" for one in runtimes.values()]
        lines.append(f"| {name} | {madds / 1e6:.1f} M | {' | '.join(each)} |")
    return lines
