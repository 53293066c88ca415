"""Space files that break a rule: one line that says where, which value, and what would be valid."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from jsonschema import Draft202012Validator

from mnv3search.errors import SpaceError, UnknownNameError
from mnv3search.space import load_space, parse_space, space_names, space_schema, space_text

GOOD = """\
format: mnv3search.space/1
defaults: {reference: mobilenet_v2}
stem: {out_channels: 16}
stages:
  - out_channels: 16
    block: {kernel_size: 3, expansion_ratio: 1}
  - out_channels: 24
    stride: 2
    depth: [2, 3]
    block:
      kernel_size: [3, 5]
      expansion_ratio: 6
head: {feature_channels: 64}
"""
OPTIONS = GOOD.replace("depth: [2, 3]", "depth: 2").replace(
    "      kernel_size: [3, 5]\n      expansion_ratio: 6\n",
    "      options:\n        - skip\n        - {kernel_size: 3, expansion_ratio: 6}\n",
)

# what to replace, by what, and the whole message; the schema alone refuses these too
BY_SCHEMA = [
    ("[3, 5]", "4", "s.yaml:11: stages[1].block.kernel_size: 4 is not an odd number from 1 to 31; e.g. 3, 5, 7"),
    ("[3, 5]", "[3, 4]", "s.yaml:11: stages[1].block.kernel_size[1]: 4 is not an odd number from 1 to 31; e.g. 3, 5, "
     "7"),
    ("[3, 5]", "-3", "s.yaml:11: stages[1].block.kernel_size: -3 is not an odd number from 1 to 31; e.g. 3, 5, 7"),
    ("[3, 5]", "true", "s.yaml:11: stages[1].block.kernel_size: true is not an odd number from 1 to 31; e.g. 3, 5, 7"),
    ("[3, 5]", "null", "s.yaml:11: stages[1].block.kernel_size: null is not an odd number from 1 to 31; e.g. 3, 5, 7"),
    ("[3, 5]", "[]", "s.yaml:11: stages[1].block.kernel_size: the list is empty; give a list of 1 to 256 different "
     "kernel sizes"),
    ("[3, 5]", "[3, 5, 3]", "s.yaml:11: stages[1].block.kernel_size: 3 is twice in the list; give a list of 1 to "
     "256 different kernel sizes"),
    ("ratio: 6", "ratio: -6", "s.yaml:12: stages[1].block.expansion_ratio: -6 is not a number from 0.1 to 64; e.g. 3, "
     "4, 6"),
    ("ratio: 6", "ratio: [1:30]", "s.yaml:12: stages[1].block.expansion_ratio[0]: '1:30' is not a number from 0.1 to "
     "64; e.g. 3, 4, 6 (in YAML a number is written 3, 0.25 or 1e-3, without quotes)"),
    ("depth: [2, 3]", "depth: 0", "s.yaml:9: stages[1].depth: 0 is not a number of blocks from 1 to 64; e.g. 2, 3, 4"),
    ("depth: [2, 3]", "depth: 2.5", "s.yaml:9: stages[1].depth: 2.5 is not a number of blocks from 1 to 64; e.g. 2, 3, "
     "4"),
    ("depth: [2, 3]", "depths: [2, 3]", "s.yaml:9: stages[1].depths: 'depths' is an unknown key; did you mean depth?"),
    ("stride: 2", "choices: net", "s.yaml:8: stages[1].choices: 'net' is not block (each block chooses for itself) or "
     "stage (all blocks of the stage share one choice)"),
    ("space/1", "space/2", "s.yaml:1: format: 'mnv3search.space/2' is not mnv3search.space/1, the format that this "
     "release reads"),
    ("stages:", "stage:", "s.yaml:4: stage: 'stage' is an unknown key; did you mean stages or stem?"),
    ("head: {feature_channels: 64}\n", "", "s.yaml:1: lacks 'head'; it is a mapping: from the last block to the "
     "logits"),
    ("head: {feature_channels: 64}", "head: 64", "s.yaml:13: head: 64 is not a mapping: from the last block to the "
     "logits"),
    ("head: {feature_channels: 64}", "head: {feature_channels: 64, activation: gelu}", "s.yaml:13: head.activation: "
     "'gelu' is not one of relu, relu6, hard_swish, swish"),
]  # fmt: skip

# what the schema cannot say
BY_MEANING = [
    ("mobilenet_v2", "mobilenet_v22", "s.yaml:2: defaults.reference: unknown network 'mobilenet_v22'; did you mean "
     "mobilenet_v2"),
    ("kernel_size: [3, 5]", "kernel_size: .nan", "s.yaml:11: stages[1].block.kernel_size: nan is not a finite number"),
    ("  - out_channels: 16\n", "  - out_channels: 16\n    out_channels: 8\n", "s.yaml:6: stages[0].out_channels: the "
     "key is given twice, first in line 5; keep one"),
    ("out_channels: 24", "out_channels: 65536", "BlockSpec.expanded_channels is 393216; it must be an integer from 1 "
     "to 65536"),
]  # fmt: skip


def _message(text: str) -> str:
    with pytest.raises(SpaceError) as caught:
        parse_space(text, "s", "s.yaml")
    message = str(caught.value)
    assert "\n" not in message
    return message


def _changed(old: str, new: str, text: str = GOOD) -> str:
    assert old in text
    return text.replace(old, new, 1)


def test_the_texts_that_these_tests_change_are_good() -> None:
    assert parse_space(GOOD, "s").size == 4 + 8
    assert parse_space(OPTIONS, "s").size == 2


@pytest.mark.parametrize(("old", "new", "message"), BY_SCHEMA)
def test_rules_of_the_schema(old: str, new: str, message: str) -> None:
    text = _changed(old, new)
    assert _message(text) == message
    assert not Draft202012Validator(space_schema()).is_valid(yaml.safe_load(text))


@pytest.mark.parametrize(("old", "new", "message"), BY_MEANING)
def test_rules_beyond_the_schema(old: str, new: str, message: str) -> None:
    assert message in _message(_changed(old, new))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("depth: 2", "depth: [2, 3]", "s.yaml:12: stages[1].block.options[0]: skip varies the depth already; give one "
         "depth in place of [2, 3]"),
        ("depth: 2", "depth: 1", "s.yaml:12: stages[1].block.options[0]: skip is possible in a block of stride 1 with "
         "equal input and output widths, and this stage's only block is not one; remove skip or give a depth of 2 or "
         "more"),
        ("depth: 2", "depth: 2\n    choices: stage", "s.yaml:13: stages[1].block.options[0]: skip cannot be a choice "
         "of a whole stage; give a list of depths"),
        ("        - {kernel_size: 3, expansion_ratio: 6}\n", "", "s.yaml:12: stages[1].block.options[0]: skip is the "
         "only option; give another one"),
        ("- skip", "- skp", "s.yaml:12: stages[1].block.options[0]: 'skp' is not the word skip, or a mapping with "
         "kernel_size and expansion_ratio"),
        ("- skip", "- {kernel_size: 3, expansion_ratio: 6, activation: relu}", "s.yaml:13: "
         "stages[1].block.options[1]: the option k3_e6_relu is given twice; keep one"),
        ("- skip", "- {kernel_size: 3}", "s.yaml:12: stages[1].block.options[0]: lacks 'expansion_ratio'; it is a "
         "number from 0.1 to 64; e.g. 3, 4, 6"),
    ],
)  # fmt: skip
def test_options_and_skip(old: str, new: str, message: str) -> None:
    assert _message(_changed(old, new, OPTIONS)) == message


def test_a_network_without_blocks_is_refused() -> None:
    text = _changed("{kernel_size: 3, expansion_ratio: 1}", "{options: [skip, {kernel_size: 3, expansion_ratio: 1}]}")
    text = text[: text.index("  - out_channels: 24")] + "head: {feature_channels: 64}\n"
    assert "every block can be skipped; at least one must stay" in _message(text)


def test_a_space_of_one_architecture_is_refused() -> None:
    text = _changed("[3, 5]", "3").replace("[2, 3]", "2")
    message = _message(text)
    assert message == (
        "s.yaml:5: stages: the space has one architecture; give at least one list with two values to choose from"
    )


def test_two_ratios_that_round_to_one_width_are_one_architecture() -> None:
    text = _changed("[3, 5]", "3").replace("[2, 3]", "1").replace("ratio: 6", "ratio: [2.3, 2.5]")
    assert "the space has one architecture" in _message(text)


def test_too_large_spaces_are_refused() -> None:
    assert "257 blocks at full depth; a space has at most 200" in _message(
        GOOD.replace("[2, 3]", "64").replace("head:", "  - {out_channels: 8, depth: 64, block: {kernel_size: 3, "
                                             "expansion_ratio: 1}}\n" * 3 + "head:")
    )  # fmt: skip
    ratios = ", ".join(str(2 + i / 10) for i in range(250))
    widths = ", ".join(str(8 * i) for i in range(1, 201))
    many = GOOD.replace("ratio: 6", f"ratio: [{ratios}]").replace("out_channels: 24", f"out_channels: [{widths}]")
    assert "combinations of choices in its blocks; at most 200000" in _message(many)


@pytest.mark.parametrize("length", range(30, len(GOOD), 23))
def test_truncated_files_end_in_one_line(length: int) -> None:
    assert _message(GOOD[:length]).startswith("s.yaml:")


def test_the_schema_is_one_and_accepts_the_shipped_spaces() -> None:
    Draft202012Validator.check_schema(space_schema())
    folder = Path(__file__).parents[2] / "search_spaces"
    for path in folder.glob("*.yaml"):
        data = yaml.safe_load(path.read_text(encoding="utf-8"))
        assert Draft202012Validator(space_schema()).is_valid(data), path
    assert len(list(folder.glob("*.yaml"))) == len(space_names())


def test_unknown_names_and_paths(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match=r"unknown space 'mnv3_larg'; did you mean mnv3_large.*ends in \.yaml"):
        load_space("mnv3_larg")
    with pytest.raises(SpaceError, match=r"absent\.yaml: cannot be read: No such file"):
        load_space(tmp_path / "absent.yaml")
    with pytest.raises(UnknownNameError, match=r"unknown space '\.\./mnv2'"):
        load_space("../mnv2")


def test_a_file_takes_its_name_from_the_path(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(GOOD, encoding="utf-8")
    for given in (path, str(path)):
        space = load_space(given)
        assert (space.name, space.description, space.device, space.evaluator) == ("mine", "mine", "pixel1", "prior")


@pytest.mark.parametrize("name", space_names())
def test_a_kept_copy_of_a_space_is_the_space(name: str) -> None:
    assert parse_space(space_text(name), name) == load_space(name)


def test_stages_that_overlap_in_too_many_ways(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mnv3search.space.counting.MAX_AUTOMATON_STATES", 1)
    joining = "  - {out_channels: 24, depth: [1, 2], block: {kernel_size: [3, 5], expansion_ratio: 6}}\nhead:"
    message = _message(GOOD.replace("head:", joining))
    assert message.startswith("s.yaml:5: stages: neighbouring stages of this space overlap in too many ways")


def test_the_first_error_is_reported() -> None:
    """A wrong format before all else, then unknown keys, then what is missing or wrong, from the top."""
    wrong = GOOD.replace("expansion_ratio: 6", "expansion_ratio: 600").replace("[2, 3]", "[2, 0]")
    assert _message(wrong).startswith("s.yaml:9: stages[1].depth[1]: 0 is not")
    unknown = wrong.replace("head: {", "head: {fetaure_channels: 3, ")
    assert _message(unknown).startswith("s.yaml:13: head.fetaure_channels: 'fetaure_channels' is an unknown key; did")
    newer = unknown.replace("space/1", "space/2")
    assert _message(newer).startswith("s.yaml:1: format: 'mnv3search.space/2' is not mnv3search.space/1")
    lacking = wrong.replace("feature_channels: 64", "")
    assert _message(lacking).startswith("s.yaml:9: "), "by line"
    assert _message(lacking.replace("600", "6").replace("[2, 0]", "2")).startswith("s.yaml:13: head: lacks 'feature")


def test_few_near_keys_are_named() -> None:
    assert _message(_changed("kernel_size: [3, 5]", "kernel_sise: [3, 5]")).endswith("; did you mean kernel_size?")
    message = _message(_changed("stride: 2", "zzz: 2"))
    assert message.endswith("the keys here are block, choices, depth, out_channels, stride")


def test_errors_name_the_file(tmp_path: Path) -> None:
    path = tmp_path / "mine.yml"
    path.write_text(GOOD.replace("[3, 5]", "[3, 4]"), encoding="utf-8")
    with pytest.raises(SpaceError) as caught:
        load_space(path)
    assert str(caught.value).startswith(f"{path}:11: stages[1].block.kernel_size[1]: 4 is not")
    assert space_text(str(path)) == path.read_text()


def test_first_choices_are_a_network_of_the_space() -> None:
    """Without a reference: stride in the first block alone, expanded widths by each block's own input, its own norm."""
    text = GOOD.replace("defaults: {reference: mobilenet_v2}", "norm: {eps: 0.25, momentum: 0.5}")
    space = parse_space(text.replace("[3, 5]", "[5, 3]"), "mine")
    blocks = [(b.kernel_size, b.stride, b.expanded_channels) for b in space.reference.blocks]
    assert blocks == [(3, 1, 16), (5, 2, 16 * 6), (5, 1, 24 * 6)]
    assert (space.reference.norm_eps, space.reference.norm_momentum) == (0.25, 0.5)
    assert space.contains(space.reference)
