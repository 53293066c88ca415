"""What a scan of images found, as a value and as lines to read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

from mnv3search.errors import DataError

SHOWN, MOST_FAULTS = 5, 1000
MOST_IN_AN_ERROR = 3  # images that an error names; more of them are listed, one a line
MODES = {
    "L": "grey", "1": "black and white", "P": "palette", "PA": "palette with alpha", "LA": "grey with alpha",
    "RGBA": "alpha", "CMYK": "CMYK", "I;16": "16 bits", "I": "32 bits", "YCbCr": "YCbCr", "LAB": "Lab",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class ScanReport:
    """What a scan found.

    Attributes:
        images: how many were looked at.
        unreadable: of each image that cannot be used what is wrong: empty, cut short, damaged, too large, no image.
        empty_classes: (split, class) without an image.
        single_image_classes: (split, class) with one.
        converted: of each way of storing pixels other than RGB (Pillow's names) the number of images.
        turned: images that EXIF asks to turn; they are.
        copies: groups of files with the same bytes.
        copies_between_splits: how many of these groups are in more than one split.
        copies_between_classes: how many of them are in more than one class.
        ignored: files that were left out: hidden, not images by their names, or outside the folders of the classes.
        shortest_side, longest_side: of all images, pixels; 0 where none could be read.
    """

    images: int
    unreadable: Mapping[str, str]
    empty_classes: tuple[tuple[str, str], ...] = ()
    single_image_classes: tuple[tuple[str, str], ...] = ()
    converted: Mapping[str, int] | None = None
    turned: tuple[str, ...] = ()
    copies: tuple[tuple[str, ...], ...] = ()
    copies_between_splits: int = 0
    copies_between_classes: int = 0
    ignored: tuple[str, ...] = ()
    shortest_side: int = 0
    longest_side: int = 0

    @property
    def bad(self) -> bool:
        """Whether something has to be mended before the images can be used."""
        return bool(self.unreadable or self.empty_classes)

    def raise_if_bad(self) -> None:
        """Stop where something has to be mended.

        Raises:
            DataError: names the images that cannot be used, only the first of them where there are many, or the
                classes without images.
        """
        if self.unreadable:
            reasons = list(self.unreadable.values())
            named = reasons if len(reasons) <= MOST_IN_AN_ERROR else [reasons[0], f"and {len(reasons) - 1:,} more"]
            count = "1 image" if len(reasons) == 1 else f"{len(reasons):,} images"
            raise DataError(f"{count} of {self.images:,} cannot be used: {'; '.join(named)}")
        if self.empty_classes:
            raise DataError(f"no images of {_pairs(self.empty_classes)}; add some, or remove the class from all splits")

    def faults(self) -> list[str]:
        """What is wrong with each image that cannot be used, one a line: the first 1,000; none if the error tells."""
        reasons = list(self.unreadable.values())
        if len(reasons) <= MOST_IN_AN_ERROR:
            return []
        rest = len(reasons) - MOST_FAULTS
        return [*reasons[:MOST_FAULTS], *([f"and {rest:,} more"] if rest > 0 else [])]

    def lines(self) -> list[str]:
        """The report, one finding a line; the first says what was looked at."""
        sides = f", sides of {self.shortest_side} to {self.longest_side} pixels" if self.longest_side else ""
        found = [f"{self.images:,} images{sides}"]
        if self.unreadable:
            found.append(f"cannot be used: {_some(list(self.unreadable.values()))}")
        if self.empty_classes:
            found.append(f"classes without images: {_pairs(self.empty_classes)}")
        if self.single_image_classes:
            found.append(f"classes with one image: {_pairs(self.single_image_classes)}")
        if self.converted:
            kinds = ", ".join(f"{count:,} {MODES.get(mode, mode)}" for mode, count in sorted(self.converted.items()))
            found.append(f"converted to RGB: {kinds}")
        if self.turned:
            found.append(f"turned as EXIF says: {len(self.turned):,}")
        if self.copies:
            between = [
                f"{count} of them {what}"
                for count, what in (
                    (self.copies_between_splits, "in more than one split, so accuracy will look better than it is"),
                    (self.copies_between_classes, "in more than one class"),
                )
                if count
            ]
            equal = [" = ".join(_shortened(group)) for group in self.copies]
            found.append("; ".join([f"the same image more than once: {len(equal):,} ({_some(equal)})", *between]))
        if self.ignored:
            found.append(f"left out, as no images of a class: {_some(self.ignored)}")
        return found

    def to_mapping(self) -> dict[str, object]:
        """Plain values for JSON."""
        return {**asdict(self), "unreadable": dict(self.unreadable), "converted": dict(self.converted or {})}


def _some(items: Sequence[str]) -> str:
    more = f" and {len(items) - SHOWN:,} more" if len(items) > SHOWN else ""
    return f"{', '.join(items[:SHOWN])}{more}"


def _shortened(group: Sequence[str]) -> list[str]:
    """The names of a group of equal files, few enough to read."""
    return [*group[:SHOWN], *([f"{len(group) - SHOWN:,} more"] if len(group) > SHOWN else [])]


def _pairs(pairs: Sequence[tuple[str, str]]) -> str:
    return _some([f"{label!r} in {split}" if split else repr(label) for split, label in pairs])
