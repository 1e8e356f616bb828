"""Small pieces of text that many pages show, as escaped HTML."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from urllib.parse import quote

from markupsafe import Markup, escape

from app.models.tables import VersionRow

DASH = Markup('<span class="faint">—</span>')
_SIGNS = {
    "validating": ("◌", "wait"), "queued": ("◌", "wait"), "running": ("●", "live"), "pausing": ("●", "live"),
    "paused": ("❚❚", "wait"), "cancelling": ("●", "live"), "succeeded": ("✓", "good"), "ready": ("✓", "good"),
    "served": ("✓", "good"), "changing": ("●", "live"), "failed": ("✕", "bad"), "rejected": ("✕", "bad"),
    "refused": ("✕", "bad"), "cancelled": ("⊘", "off"), "archived": ("⊘", "off"), "empty": ("◌", "off"),
}  # fmt: skip
"""A sign beside the word, so that nobody has to see the colour."""
_STEPS = ((60, "s"), (60, "min"), (24, "h"), (30, "d"), (12, "months"))
CHIPS = 8
"""Names that are shown of a long list."""


def badge(state: str) -> Markup:
    """A state with its sign."""
    sign, tone = _SIGNS.get(state, ("●", "off"))
    return Markup('<span class="badge {}"><i aria-hidden="true">{}</i>{}</span>').format(tone, sign, state)


def chips(names: Sequence[str], most: int = CHIPS) -> Markup:
    """Names side by side, and how many more there are."""
    shown = Markup("").join(Markup('<span class="chip">{}</span>').format(name) for name in names[:most])
    rest = len(names) - most
    more = (
        Markup('<span class="faint" title="{}">+{}</span>').format(", ".join(names[most:200]), rest) if rest > 0 else ""
    )
    return Markup('<span class="chips">{}{}</span>').format(shown, more)


def link(path: str, text: object, kind: str = "") -> Markup:
    """A link to one of our own pages."""
    return Markup('<a href="{}" class="{}">{}</a>').format(path, kind, text)


def model_link(ref: str) -> Markup:
    """A version's name, linked to its model."""
    return link(f"/models/{quote(ref.partition('@')[0])}", ref)


def short(identifier: str) -> Markup:
    """The end of a long id, with all of it at hand."""
    prefix, _, rest = identifier.rpartition("_")
    return Markup('<code title="{}">{}_…{}</code>').format(identifier, prefix, rest[-6:])


def size(count: int) -> str:
    """Bytes for people."""
    return _scaled(float(count), ("B", "kB", "MB", "GB", "TB"))


def count(number: float | None) -> str:
    """A large number for people: 102,821 as 103 k."""
    return "—" if number is None else _scaled(float(number), ("", "k", "M", "G", "T", "P")).rstrip()


def _scaled(amount: float, units: Sequence[str]) -> str:
    """Three digits of an amount, in the unit that keeps them below 1000."""
    *smaller, largest = units
    for unit in smaller:
        if abs(amount) < 999.5:  # from there on three digits say 1000
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} {largest}" if abs(amount) < 999.5 else f"{amount:,.0f} {largest}"


def percent(share: float | None) -> str:
    """A share of 0..1."""
    return "—" if share is None else f"{100 * share:.1f} %"


def accuracy(version: VersionRow) -> Markup:
    """How well a version does by itself, with what it was measured on at hand."""
    if version.accuracy is None:
        return DASH
    on = f"{version.accuracy_images:,} images of {version.accuracy_dataset}"
    return Markup('<span title="measured by a job on {}">{}</span>').format(on, percent(version.accuracy))


def ago(moment: datetime | None) -> Markup:
    """How long ago, with the moment itself at hand."""
    if moment is None:
        return DASH
    passed = max((datetime.now(UTC) - moment).total_seconds(), 0)
    text = "just now" if passed < 5 else f"{duration(passed)} ago"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        moment.isoformat(), moment.strftime("%Y-%m-%d %H:%M:%S UTC"), text
    )


def duration(seconds: float) -> str:
    """A time for people, in its largest unit."""
    amount = seconds
    for most, unit in _STEPS:
        if amount < most:
            return f"{amount:.0f} {unit}" if amount >= 10 or unit != "s" else f"{amount:.1f} s"
        amount /= most
    return f"{amount:.0f} years"


def facts(rows: Mapping[str, object]) -> Markup:
    """Names and values; what is missing is a dash."""
    cells = (
        Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(name, DASH if value in (None, "") else value)
        for name, value in rows.items()
    )
    return Markup('<dl class="facts">{}</dl>').format(Markup("").join(cells))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], caption: str) -> Markup:
    """A table that becomes a list of cards where there is no room.

    Args:
        columns: Their titles; one that begins with `#` holds numbers.
        rows: As many values each.
        caption: What it is, for those who cannot see it.
    """
    names = [name.removeprefix("#") for name in columns]
    kinds = ["number" if name.startswith("#") else "" for name in columns]
    head = Markup("").join(
        Markup('<th scope="col" class="{}">{}</th>').format(kind, name) for name, kind in zip(names, kinds, strict=True)
    )
    body = Markup("").join(
        Markup("<tr>{}</tr>").format(
            Markup("").join(
                Markup('<td class="{}" data-label="{}"><span>{}</span></td>').format(kind, name, cell)
                for name, kind, cell in zip(names, kinds, row, strict=True)
            )
        )
        for row in rows
    )
    return Markup(
        '<table class="list"><caption>{}</caption><thead><tr>{}</tr></thead><tbody>{}</tbody></table>'
    ).format(caption, head, body)


def empty(title: str, advice: object) -> Markup:
    """What stands where there is nothing yet, and what to do about it."""
    return Markup('<div class="empty"><strong>{}</strong><p>{}</p></div>').format(title, advice)


def more(rest: int, where: object) -> Markup:
    """How many rows are left out, and where they are; nothing if none are."""
    return Markup('<p class="faint rest">and {:,} more: {}</p>').format(rest, where) if rest > 0 else Markup("")


def command(*words: str) -> Markup:
    """A command to type."""
    return Markup("<code>{}</code>").format(" ".join(words))


def problem(text: str) -> Markup:
    """Something that went wrong."""
    return Markup('<div class="problem" role="alert"><i aria-hidden="true">✕</i><span>{}</span></div>').format(text)


def section(name: str, content: object, hint: str = "") -> Markup:
    """A part of a page with its heading."""
    return Markup('<section class="card">{}{}</section>').format(title(name, hint), escape(content))


def title(name: str, hint: str = "") -> Markup:
    """The heading of a part of a page."""
    note = Markup('<p class="hint">{}</p>').format(hint) if hint else ""
    return Markup('<h2 class="title">{}</h2>{}').format(name, note)
