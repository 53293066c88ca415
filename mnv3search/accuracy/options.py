"""What stands behind an evaluator's name on the command line: ``epochs=3,images=10000``."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mnv3search.errors import EvaluatorError, UnknownNameError


@dataclass(frozen=True, slots=True)
class WholeNumber:
    """An option that is an integer from ``low`` to ``high``; ``default`` where it is not given."""

    default: int | None
    low: int
    high: int


def parse_numbers(text: str, known: Mapping[str, WholeNumber], evaluator: str) -> dict[str, int | None]:
    """The options of ``text`` (``name=number`` with commas between), the defaults filled in.

    Raises:
        UnknownNameError: no such option.
        EvaluatorError: an option twice, without a number, or out of its range.
    """
    found: dict[str, int | None] = {}
    for part in filter(None, text.split(",")):
        name, separator, value = part.partition("=")
        if name not in known:
            raise UnknownNameError(f"option of the evaluator {evaluator}", name, known)
        if name in found:
            raise EvaluatorError(f"evaluator {evaluator}: option {name} is given twice; give it once")
        rule = known[name]
        if not (separator and value.isascii() and value.isdigit() and rule.low <= int(value[:12]) <= rule.high):
            raise EvaluatorError(
                f"evaluator {evaluator}: {part!r} must be {name}= and an integer from {rule.low:,} to {rule.high:,}"
            )
        found[name] = int(value)
    return {name: found.get(name, rule.default) for name, rule in known.items()}
