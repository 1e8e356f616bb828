"""Progress of a job in the terminal, with a table and a plot of its trials."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from app.cli.screen import Screen, plain
from pnc_client.schemas.jobs import newest_trials

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pnc_client import Event, Job

Record = dict[str, Any]
ROWS = 10
"""Number of trials in the table; the best trials are shown."""
WIDTH, HEIGHT = 60, 10
"""Size of the plot, in characters."""
SCREENED, TRAINED, BEST = "○", "■", "★"


def watch_job(job: "Job", screen: Screen) -> "Job":
    """Follow a job on standard error until it ends; silent with `--json`.

    If standard error is not a terminal, each event is printed as one line.
    """
    if screen.as_json:
        return job.wait()
    notes = screen.notes
    if not notes.is_terminal:
        return job.wait(lambda event: notes.print(plain(f"{event.progress:>4.0%} {event.message}"), markup=False))
    columns = (TextColumn("{task.description:<24}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"))
    progress = Progress(*columns, TimeElapsedColumn())
    task = progress.add_task(job.state, total=1.0)
    trials: list[Record] = []
    with Live(progress, console=notes, refresh_per_second=8) as live:

        def show(event: "Event") -> None:
            progress.update(task, description=plain(event.stage or event.state), completed=event.progress)
            if event.type == "trial":
                trials.append(event.data)
                live.update(Group(trials_view(trials), progress))

        return job.wait(show)


def trials_view(trials: Sequence[Record]) -> "RenderableType":
    """A plot of score over module size, and a table of the best trials."""
    trials = newest_trials(trials, dict.get)
    if not trials:
        return Text("no position tried yet")
    return Group(_plot(trials), _table(trials))


def _table(trials: Sequence[Record]) -> Table:
    table = Table(box=None, pad_edge=False)
    for column in ("round", "target", "source", "score", "numbers", ""):
        table.add_column(column, justify="right" if column in ("round", "score", "numbers") else "left")
    best = sorted(trials, key=lambda trial: (-trial["round"], -trial["score"]))
    for trial in best[:ROWS]:
        table.add_row(
            str(trial["round"]) if trial["round"] else "screen",
            Text(plain(trial["target_position"])),
            Text(plain(trial["source_position"])),
            f"{trial['score']:.3f}",
            f"{trial['parameters'] or 0:,}",
            Text("━" * round(20 * min(max(trial["score"], 0), 1)), style="cyan"),
        )
    if len(trials) > ROWS:
        table.caption = f"the best {ROWS} of {len(trials)}"
    return table


def _plot(trials: Sequence[Record]) -> Text:
    """A character grid: module size along the horizontal axis, score along the vertical axis."""
    sizes, scores = [t["parameters"] or 0 for t in trials], [t["score"] for t in trials]
    cells = [[" "] * WIDTH for _ in range(HEIGHT)]
    order = sorted(trials, key=lambda trial: (trial["round"], trial["score"]))
    for trial in order:
        column = _place(trial["parameters"] or 0, sizes, WIDTH)
        row = HEIGHT - 1 - _place(trial["score"], scores, HEIGHT)
        cells[row][column] = BEST if trial is order[-1] else TRAINED if trial["round"] else SCREENED
    lines = [f"{_tick(scores, row):>6} │{''.join(line)}" for row, line in enumerate(cells)]
    axis = f"{'':>6} └{'─' * WIDTH}"
    left, right = f"{min(sizes):,}", f"{max(sizes):,} numbers"
    ticks = f"{'':>8}{left}{right:>{WIDTH - len(left)}}"
    legend = f"{'':>8}{SCREENED} screened  {TRAINED} trained  {BEST} best"
    return Text("\n".join([*lines, axis, ticks, legend]))


def _place(value: float, values: Sequence[float], steps: int) -> int:
    low, high = min(values), max(values)
    return steps // 2 if low == high else round((steps - 1) * (value - low) / (high - low))


def _tick(scores: Sequence[float], row: int) -> str:
    if row == 0:
        return f"{max(scores):.3f}"
    return f"{min(scores):.3f}" if row == HEIGHT - 1 else ""
