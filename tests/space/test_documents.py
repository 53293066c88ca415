"""Reading YAML: what is refused before any rule of the format is looked at."""

from __future__ import annotations

from pathlib import Path

import pytest

from mnv3search.errors import SpaceError
from mnv3search.space.documents import parse_document, path_text, read_text, shown


def test_values_and_their_lines() -> None:
    document = parse_document("a: 1\nb:\n  - x\n  - c: 2.0\n    d: [1, 2]\n", "f.yaml")
    assert document.data == {"a": 1, "b": ["x", {"c": 2, "d": [1, 2]}]}
    assert document.lines[("b", 1, "d", 0)] == 5
    assert document.key_lines[("b",)] == 2
    assert path_text(("b", 1, "d", 0)) == "b[1].d[0]"
    assert isinstance(document.data["b"][1]["c"], int)  # 2.0 is the number 2


def test_an_alias_is_its_value() -> None:
    document = parse_document("a: &x {k: 1}\nb: *x\n", "f.yaml")
    assert document.data["b"] == {"k": 1}


BOMB = "".join(f"l{i}: &l{i} [{', '.join([f'*l{i - 1}'] * 9)}]\n" for i in range(1, 9))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "f.yaml:1: is empty; a space begins with 'format: mnv3search.space/1'"),
        ("# only a comment\n", "f.yaml:1: is empty"),
        ("a: 1\na: 2\n", "f.yaml:2: a: the key is given twice, first in line 1; keep one"),
        ("a:\n  b: {c: 1, c: 2}\n", "f.yaml:2: a.b.c: the key is given twice, first in line 2; keep one"),
        ("a: [1, 2\n", "f.yaml:2: is not YAML, or cut short: expected ',' or ']'"),
        ('a: "x\n', "f.yaml:2: is not YAML, or cut short: found unexpected end of stream"),
        ("a: 1\n---\nb: 2\n", "f.yaml:2: is not YAML, or cut short: but found another document"),
        ("a: *x\n", "f.yaml:1: is not YAML, or cut short: found undefined alias 'x'"),
        ("a: .nan\n", "f.yaml:1: a: nan is not a finite number; give an ordinary one"),
        ("a: [1, -.inf]\n", "f.yaml:1: a[1]: -inf is not a finite number; give an ordinary one"),
        ("? [1]\n: 2\n", "f.yaml:1: a key must be a word, not a list or mapping"),
        (
            "a: !!python/object:os.system {}\n",
            "f.yaml:1: a: the tag 'tag:yaml.org,2002:python/object:os.system' is not",
        ),
        ("a: !!python/name:os.system x\n", "f.yaml:1: a: 'x' cannot be read as a value"),
        ("a: !!int 1:30\n", "f.yaml:1: a: '1:30' cannot be read as a value"),
        ("a: !!binary AA==\n", "f.yaml:1: a: 'AA==' cannot be read as a value"),
        ("a: 010\n", "f.yaml:1: a: '010' begins with 0, which some read as octal; write '10'"),
        ("a: " + "9" * 6000, "f.yaml:1: a: '9999"),
        ("a: \x00", "f.yaml:1: is not YAML: unacceptable character"),
        ("[" * 5000, "f.yaml:1: more than 20000 values, or nested deeper than 32"),
        ("a: &a [*a]\n", "f.yaml:1: more than 20000 values, or nested deeper than 32"),
        ("l0: &l0 [1, 1]\n" + BOMB, "more than 20000 values, or nested deeper than 32"),
        ("a: 1\n" + "- " * 40, "f.yaml:2: is not YAML, or cut short"),
        ("".join(f"a{i}: 1\n" for i in range(30_000)), "more than 20000 values"),
        ("a" * 1_000_001, "f.yaml: the text is longer than 1000000 bytes"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    with pytest.raises(SpaceError) as caught:
        parse_document(text, "f.yaml")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_plain_scalars_are_those_of_yaml_1_2() -> None:
    """In YAML 1.1 ``no`` is a truth value, ``1:30`` is 90, ``0o10`` and ``1e-3`` are texts."""
    text = "[no, Yes, off, 1:30, 1_000, 2020-01-02, null, ~, true, 0, -7, 0o10, 0x1F, 1e-3, .5, 2.0, '1', \"no\"]"
    assert parse_document(text, "f.yaml").data == [
        "no", "Yes", "off", "1:30", "1_000", "2020-01-02", None, None, True, 0, -7, 8, 31, 0.001, 0.5, 2, "1", "no",
    ]  # fmt: skip


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    large, binary = tmp_path / "large.yaml", tmp_path / "binary.yaml"
    large.write_bytes(b"#" * 1_000_001)
    binary.write_bytes(b"\xff\xfe\x00a")
    cases = {
        large: "more than the 1,000,000 bytes",
        binary: "not UTF-8; save it as text in UTF-8; a space is a YAML file",
        tmp_path: "cannot be read: it is a folder",
        tmp_path / "absent.yaml": "cannot be read: No such file or directory",
        Path("a\0.yaml"): "cannot be a path",
    }
    for path, message in cases.items():
        with pytest.raises(SpaceError, match=message):
            read_text(path)


def test_an_error_has_the_line_of_the_value_or_of_what_holds_it() -> None:
    document = parse_document("a: 1\nb:\n  - x\n  - c: 2\n\n    d: 3\n", "f.yaml")
    for path, line, key in (
        (("b", 1, "d"), 6, "b[1].d"), (("b", 1, "e", "f"), 4, "b[1]"), (("b", 5), 3, "b"), (("z",), 1, ""),
    ):  # fmt: skip
        assert str(document.error(path, "no")) == f"f.yaml:{line}: {key}{': ' if key else ''}no"
    moved = parse_document("\n\na:\n\n  1\n", "f.yaml")
    assert str(moved.error((), "no")) == "f.yaml:3: no"
    assert str(moved.error(("a",), "no")) == "f.yaml:5: a: no"


def test_values_are_shown_on_one_short_line() -> None:
    assert [shown(value) for value in (True, 3, "a\n b", ["x"])] == ["true", "3", "'a\\n b'", "['x']"]
    assert shown("x" * 58) == f"'{'x' * 58}'"
    assert shown("x" * 59) == f"'{'x' * 56}..."
