"""Oddities of a dataset in words, for the page, the command line and the validation of jobs."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

FEW = 10
"""Different images of a class below which its figures say little."""
TIMES = 10
"""Images of the largest class for one of the smallest from which the classes are called uneven."""
SMALLER = 2
"""Images are far smaller than a network's input if its side is more than so many times theirs."""
MOST_NAMED = 5


def warnings_of(
    classes: Sequence[str], counts: Mapping[str, int], findings: Mapping[str, Any], rows: int
) -> list[dict[str, str]]:
    """All warnings of an inspected dataset, each with `code` and `detail`.

    Args:
        classes: Class names; empty without labels.
        counts: Images by class that can be decoded.
        findings: Result of the inspection.
        rows: Rows of the file.
    """
    found = [*_unreadable(findings, rows), *_copies(findings, rows), *_uneven(classes, counts, findings)]
    return [{"code": code, "detail": detail} for code, detail in found]


def too_small(findings: Mapping[str, Any] | None, ref: str, input_size: Sequence[int]) -> Iterator[dict[str, str]]:
    """A warning if a dataset's images are far smaller than the input of a network.

    Args:
        findings: Result of the inspection; none: not inspected.
        ref: Name of the network.
        input_size: Channels, height and width of its input.
    """
    sizes = (findings or {}).get("sizes") or {}
    side, wanted = sizes.get("shorter_median", 0), min(input_size[1:])
    if 0 < side * SMALLER < wanted:
        yield {
            "code": "small_images",
            "detail": f"half of the images have a side of at most {side} pixels, and {ref} sees {wanted}: enlarged "
            "images lack the details that it learned; use larger ones if there are any",
        }


def _unreadable(findings: Mapping[str, Any], rows: int) -> Iterator[tuple[str, str]]:
    bad = findings["unreadable"]
    if bad:
        first = findings["first_unreadable"][0]
        name = first.get("name") or f"row {first['row']}"
        said = f"{bad:,} of {rows:,} images cannot be decoded and are left out; {name}: {first['reason']}"
        yield "unreadable_images", said


def _copies(findings: Mapping[str, Any], rows: int) -> Iterator[tuple[str, str]]:
    exact, near, across, constant = (findings[name] for name in ("exact", "near", "across", "constant"))
    pairs = findings["examples"]
    such = f", such as rows {pairs[0][0]} and {pairs[0][1]}" if pairs else ""
    if exact:
        yield (
            "duplicates",
            (
                f"{exact:,} of {rows:,} images are exact copies of others{such}; accuracies on held-out images are "
                "too high if copies of them were learned"
            ),
        )
    if near:
        yield "near_duplicates", f"{near:,} images are nearly copies of others{such if not exact else ''}"
    if across:
        yield "copies_across_classes", f"{across:,} images occur in several classes: some of their labels are wrong"
    if constant:
        yield "constant_images", f"{constant:,} of {rows:,} images have one colour: they show nothing"


def _uneven(
    classes: Sequence[str], counts: Mapping[str, int], findings: Mapping[str, Any]
) -> Iterator[tuple[str, str]]:
    distinct: Mapping[str, int] = findings["distinct"]
    few = [f"{name} ({distinct.get(name, 0)})" for name in classes if distinct.get(name, 0) < FEW]
    if few:
        yield (
            "few_images",
            (
                f"{len(few):,} of {len(classes):,} classes have fewer than {FEW} different images: {_some(few)}; "
                "accuracies of so few say little"
            ),
        )
    if len(classes) == 1:
        yield "one_class", f"all images are of one class, {classes[0]}: a job also needs images of the target's classes"
    used = {name: counts[name] for name in classes if counts.get(name)}
    if used and max(used.values()) >= TIMES * min(used.values()):
        large, small = max(used, key=lambda name: used[name]), min(used, key=lambda name: used[name])
        yield (
            "uneven_classes",
            (
                f"{large} has {used[large]:,} images and {small} {used[small]:,}: heads are fitted mostly to the large "
                "class"
            ),
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED:,} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more
