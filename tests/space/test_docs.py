"""docs/spaces.md: its example loads, and it names every key and every parameter."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mnv3search.cost import count
from mnv3search.families import published
from mnv3search.space import SearchSpace, load_space, parse_space, space_names, space_schema

DOCS = (Path(__file__).parents[2] / "docs" / "spaces.md").read_text(encoding="utf-8")


def _example() -> SearchSpace:
    found = re.search(r"```yaml\n(.*?)```", DOCS, re.DOTALL)
    assert found is not None
    return parse_space(found[1], "tiny", "tiny.yaml")


def test_the_example_has_the_size_that_is_said() -> None:
    space = _example()
    assert space.size == 2 * (8 + 8**2) * 8 * 2 * (1 + 2 + 4) == 16_128
    assert sum(1 for _ in space.enumerate()) == space.size


def test_the_example_has_every_kind_of_parameter() -> None:
    kinds = {re.sub(r"\d+", "N", p.name) for p in _example().parameters}
    assert {"stageN.out_channels", "stageN.depth", "stageN.blockN.kernel_size", "stageN.kernel_size"} < kinds
    assert "stageN.blockN.option" in kinds
    options = {str(c) for p in _example().parameters if p.name.endswith("option") for c in p.choices}
    assert options == {"k3_e6_se_hard_swish", "k5_e4_relu", "skip"}
    assert all(f"`{name}`" in DOCS for name in options)


@pytest.mark.parametrize("name", [*space_names(), "tiny"])
def test_every_parameter_is_documented(name: str) -> None:
    space = _example() if name == "tiny" else load_space(name)
    for parameter in space.parameters:
        pattern = re.sub(r"block\d+", "blockM", re.sub(r"stage\d+", "stageN", parameter.name))
        assert f"`{pattern}`" in DOCS


@pytest.mark.parametrize("name", space_names())
def test_the_table_states_size_and_defaults(name: str) -> None:
    space = load_space(name)
    line = next(line for line in DOCS.splitlines() if line.startswith(f"| `{name}` |"))
    assert f"| {space.size:.1e} |".replace("+", "") in line
    assert f"`{space.device}`" in line
    assert (f"`{space.evaluator}`" if space.evaluator else "none") in line
    assert space.reference_name is None or f"`{space.reference_name}`" in line


def _keys(schema: Any) -> set[str]:
    if isinstance(schema, list):
        return set().union(*map(_keys, schema))
    if not isinstance(schema, dict):
        return set()
    own = set(schema["properties"]) if isinstance(schema.get("properties"), dict) else set()
    return own.union(*map(_keys, schema.values()))


def test_every_key_of_the_format_is_documented() -> None:
    keys = _keys(space_schema())
    assert {"format", "relative_to", "hidden_bias", "options", "expansion_divisor"} < keys
    for key in keys:
        assert f"`{key}`" in DOCS, key


def test_the_python_example_states_the_truth() -> None:
    space = load_space("mnv3_small")
    choices = space.encode(published("mobilenet_v3_small"))
    choices["stage1.block1.squeeze_excite"] = False
    stated = re.search(r"# (\d+)", DOCS[DOCS.index("count(space.decode") :])
    assert stated is not None
    assert count(space.decode(choices)).parameters == int(stated[1])
    rng = np.random.default_rng(0)
    rows = space.sample_indices(10, rng)
    children = space.crossover(rows, space.mutate(rows, rng, 0.05), rng)
    assert space.count_batch(children)._fields == ("madds", "parameters", "activations", "peak_memory_bytes")


def test_the_error_shown_is_the_error_given() -> None:
    from mnv3search.errors import SpaceError

    text = re.search(r"```yaml\n(.*?)```", DOCS, re.DOTALL)
    assert text is not None
    with pytest.raises(SpaceError) as caught:
        parse_space(text[1].replace("[3, 5]", "[3, 4]", 1), "tiny", "tiny.yaml")
    assert f"    {caught.value}\n" in DOCS
