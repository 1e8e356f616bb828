"""Markdown tables and plots, made from the records alone."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from app.plots.bars import accuracy_bars
from app.plots.drawing import save
from benchmarks.comparison.task import Record

COLUMNS = ("avg", "old", "new", "locality")
TITLES = "| method | average | old | new | locality | size | MACs | seconds | images | splits |"


def write_report(records: Sequence[Record], out: Path) -> Path:
    """Write `report.md`, and one plot for every suite and share of the images."""
    groups: dict[tuple[str, float], list[Record]] = defaultdict(list)
    for record in records:
        groups[record.suite, record.fraction].append(record)
    parts = ["# Results\n"]
    for (suite, fraction), rows in sorted(groups.items()):
        stem = f"{suite}-{fraction:g}"
        save(accuracy_bars([{**asdict(row), "average": row.avg} for row in rows], highlight=_ours(rows)), out / stem)
        parts.append(f"## {suite}, {fraction:.0%} of the images\n\n{table(rows)}\n\n![{stem}]({stem}.svg)\n")
    path = out / "report.md"
    path.write_text("\n".join(parts))
    return path


def table(records: Sequence[Record]) -> str:
    """A markdown table, one line per method: mean and standard deviation over the splits, in percent."""
    methods: dict[str, list[Record]] = defaultdict(list)
    for record in records:
        methods[record.method].append(record)
    lines = [TITLES, "| --- " * TITLES.count(" |") + "|"]
    for method, rows in methods.items():
        shares = [_percent([getattr(row, column) for row in rows]) for column in COLUMNS]
        costs = [f"{mean(row.size_ratio for row in rows):.2f}", f"{mean(row.macs_ratio for row in rows):.2f}"]
        used = [f"{mean(row.seconds for row in rows):.0f}", f"{mean(row.images_used for row in rows):.0f}"]
        lines.append("| " + " | ".join([f"`{method}`", *shares, *costs, *used, str(len(rows))]) + " |")
    return "\n".join(lines)


def markdown(
    records: Sequence[Mapping[str, Any]],
    keys: tuple[str, ...],
    shares: tuple[str, ...],
    numbers: tuple[str, ...],
    *,
    each: str = "splits",
) -> str:
    """A markdown table, one line for every combination of `keys`: mean and standard deviation.

    Args:
        records: Measured values by field.
        keys: Fields that identify a line.
        shares: Fields with values 0..1, shown in percent.
        numbers: Fields whose mean is shown unchanged.
        each: Title of the last column, the number of records in a line.
    """
    lines: dict[tuple[Any, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for record in records:
        lines[tuple(record[key] for key in keys)].append(record)
    columns = (*keys, *shares, *numbers, each)
    text = ["| " + " | ".join(columns) + " |", "| --- " * len(columns) + "|"]
    for line, rows in lines.items():
        cells = [_percent([row[name] for row in rows]) for name in shares]
        cells += [f"{mean(row[name] for row in rows):.3g}" for name in numbers]
        text.append("| " + " | ".join([*map(str, line), *cells, str(len(rows))]) + " |")
    return "\n".join(text)


def _percent(values: Sequence[float]) -> str:
    spread = f" ± {100 * stdev(values):.1f}" if len(values) > 1 else ""
    return f"{100 * mean(values):.1f}{spread}"


def _ours(records: Sequence[Record]) -> list[str]:
    return sorted({record.method for record in records if record.method.startswith("pnc_")})
