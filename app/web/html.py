"""Small pieces of escaped HTML for many pages."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from urllib.parse import quote

from markupsafe import Markup, escape

from app.models.tables import ModelRow, VersionRow

DASH = Markup('<span class="faint">—</span>')
_SIGNS = {
    "validating": ("◌", "wait"), "queued": ("◌", "wait"), "running": ("●", "live"), "pausing": ("●", "live"),
    "paused": ("❚❚", "wait"), "cancelling": ("●", "live"), "succeeded": ("✓", "good"), "ready": ("✓", "good"),
    "served": ("✓", "good"), "changing": ("●", "live"), "failed": ("✕", "bad"), "rejected": ("✕", "bad"),
    "refused": ("✕", "bad"), "suspect": ("!", "bad"), "near chance": ("!", "bad"),
    "cancelled": ("⊘", "off"), "archived": ("⊘", "off"), "empty": ("◌", "off"),
    "on": ("✓", "good"), "off": ("⊘", "off"), "failing": ("!", "bad"), "waiting": ("◌", "wait"),
    "delivered": ("✓", "good"), "in force": ("✓", "good"), "revoked": ("⊘", "off"), "expired": ("⊘", "off"),
    "canary": ("●", "live"), "shadow": ("◌", "live"),
}  # fmt: skip
"""Sign and tone of each state; the sign repeats the meaning of the colour."""
COMPLAINTS = {"suspect": "suspect", "near_chance": "near chance"}
"""Badges of a check's outcomes that need attention."""
_STEPS = ((60, "s"), (60, "min"), (24, "h"), (30, "d"), (12, "months"))
MOST_IN_TOOLTIP = 20
"""Further names that the tooltip of a long list shows."""
CHIPS = 8
"""Number of names that a long list shows."""


def badge(state: str) -> Markup:
    """A state with its sign and colour."""
    sign, tone = _SIGNS.get(state, ("●", "off"))
    return Markup('<span class="badge {}"><i aria-hidden="true">{}</i>{}</span>').format(tone, sign, state)


def version_badge(version: VersionRow) -> Markup:
    """The state of a version; beside `ready` the complaint of its newest check, with its words as the tooltip."""
    if version.archived_at:
        return badge("archived")
    complaint = COMPLAINTS.get((version.check or {}).get("outcome", ""))
    if complaint is None or version.status != "ready":
        return badge(version.status)
    detail = (version.check or {}).get("detail", "")
    return Markup('{} <span title="{}">{}</span>').format(badge(version.status), detail, badge(complaint))


def chips(names: Sequence[str], most: int = CHIPS) -> Markup:
    """The first names of a list, and the number of further names."""
    shown = Markup("").join(Markup('<span class="chip">{}</span>').format(name) for name in names[:most])
    rest = len(names) - most
    others = ", ".join(names[most : most + MOST_IN_TOOLTIP])
    more = Markup('<span class="faint" title="{}">+{}</span>').format(others, rest) if rest > 0 else ""
    return Markup('<span class="chips">{}{}</span>').format(shown, more)


def aliases_of(model: ModelRow, number: int) -> list[str]:
    """The aliases that point at a version of a model."""
    return [alias.alias for alias in model.aliases if alias.version.number == number]


def link(path: str, text: object, kind: str = "") -> Markup:
    """A link to a page of the service."""
    return Markup('<a href="{}" class="{}">{}</a>').format(path, kind, text)


def model_link(ref: str) -> Markup:
    """A version's reference, linked to the page of its model."""
    return link(f"/models/{quote(ref.partition('@')[0])}", ref)


def short(identifier: str) -> Markup:
    """The last characters of an id; the tooltip has the whole id."""
    prefix, _, rest = identifier.rpartition("_")
    return Markup('<code title="{}">{}_…{}</code>').format(identifier, prefix, rest[-6:])


COPYING = Markup(
    "<script>document.addEventListener('click', async (event) => {"
    "const one = event.target.closest && event.target.closest('[data-copy]'); if (!one) return;"
    "const text = one.dataset.copy, sign = one.innerHTML;"
    "try { await navigator.clipboard.writeText(text); }"
    "catch { const area = document.createElement('textarea'); area.value = text; document.body.append(area);"
    "area.select(); document.execCommand('copy'); area.remove(); one.focus(); }"
    "one.textContent = one.querySelector('svg') ? '✓' : 'Copied';"
    "setTimeout(() => { one.innerHTML = sign; }, 1200);"
    "});</script>"
)
"""Makes elements with `data-copy` copy this text. Without HTTPS a browser has no clipboard, but can copy a field."""


SHEETS = Markup(
    '<svg width="13" height="13" viewBox="0 0 16 16" fill="none" stroke="currentColor" stroke-width="1.5" '
    'aria-hidden="true"><rect x="1.5" y="1.5" width="9" height="9" rx="1.5"/>'
    '<rect x="5.5" y="5.5" width="9" height="9" rx="1.5"/></svg>'
)
"""The picture of a copy button: few fonts have the character for it."""


def copy_button(text: str, label: str, sign: str = SHEETS) -> Markup:
    """A button that copies a text.

    Args:
        text: The text.
        label: Its name for screen readers, such as `id`.
        sign: Text or picture of the button.
    """
    return Markup(
        '<button type="button" class="copy" data-copy="{}" aria-label="Copy {}" title="Copy {}">{}</button>'
    ).format(text, label, label, sign)


def identifier(whole: str) -> Markup:
    """An id in full, with a button that copies it."""
    return Markup('<span class="id"><code>{}</code>{}</span>').format(whole, copy_button(whole, f"id {whole}"))


def id_link(path: str, whole: str) -> Markup:
    """A shortened id that links to its page, with a button that copies the id."""
    return Markup('<span class="id">{}{}</span>').format(link(path, short(whole)), copy_button(whole, f"id {whole}"))


def size(count: int) -> str:
    """A number of bytes for people, e.g. `1.2 MB`."""
    return _scaled(float(count), ("B", "kB", "MB", "GB", "TB"))


def count(number: float | None) -> str:
    """A large number for people, e.g. `103 k` for 102,821."""
    return "—" if number is None else _scaled(float(number), ("", "k", "M", "G", "T", "P")).rstrip()


def _scaled(amount: float, units: Sequence[str]) -> str:
    """An amount with three digits, in the unit in which it is below 1000."""
    *smaller, largest = units
    for unit in smaller:
        if abs(amount) < 999.5:  # 999.5 and above round to 1000
            return f"{amount:.3g} {unit}"
        amount /= 1000
    return f"{amount:.3g} {largest}" if abs(amount) < 999.5 else f"{amount:,.0f} {largest}"


def percent(share: float | None) -> str:
    """A share of 0..1 in percent, with one decimal."""
    return "—" if share is None else f"{100 * share:.1f} %"


def accuracy(version: VersionRow) -> Markup:
    """A version's accuracy; the tooltip names the dataset of the measurement."""
    if version.accuracy is None:
        return DASH
    on = f"{version.accuracy_images:,} images of {version.accuracy_dataset}"
    return Markup('<span title="measured on {}">{}</span>').format(on, percent(version.accuracy))


def ago(moment: datetime | None) -> Markup:
    """The time since a moment, e.g. `5 min ago`; the tooltip has the moment."""
    if moment is None:
        return DASH
    passed = max((datetime.now(UTC) - moment).total_seconds(), 0)
    text = "just now" if passed < 5 else f"{duration(passed)} ago"
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        moment.isoformat(), moment.strftime("%Y-%m-%d %H:%M:%S UTC"), text
    )


def duration(seconds: float) -> str:
    """A duration for people, in its largest unit."""
    amount = seconds
    for most, unit in _STEPS:
        if amount < most:
            return f"{amount:.0f} {unit}" if amount >= 10 or unit != "s" else f"{amount:.1f} s"
        amount /= most
    return f"{amount:.0f} years"


def facts(rows: Mapping[str, object]) -> Markup:
    """Names and values as a definition list; a missing value is a dash."""
    cells = (
        Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(name, DASH if value in (None, "") else value)
        for name, value in rows.items()
    )
    return Markup('<dl class="facts">{}</dl>').format(Markup("").join(cells))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]], caption: str) -> Markup:
    """A table; on narrow screens the style sheet shows each row as a card.

    Args:
        columns: Titles; a title that begins with `#` makes a right-aligned column of numbers.
        rows: One value for each column.
        caption: Description for screen readers.
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
    """A placeholder for an empty part of a page: its title, and advice on the next step."""
    return Markup('<div class="empty"><strong>{}</strong><p>{}</p></div>').format(title, advice)


def more(rest: int, where: object) -> Markup:
    """The number of omitted rows and where to find them; empty if no row is omitted."""
    return Markup('<p class="faint rest">and {:,} more: {}</p>').format(rest, where) if rest > 0 else Markup("")


def command(*words: str) -> Markup:
    """A command line as code."""
    return Markup("<code>{}</code>").format(" ".join(words))


def problem(text: str) -> Markup:
    """An error message."""
    return Markup('<div class="problem" role="alert"><i aria-hidden="true">✕</i><span>{}</span></div>').format(text)


def section(name: str, content: object, hint: Markup | str = "") -> Markup:
    """A section of a page, with its heading."""
    return Markup('<section class="card">{}{}</section>').format(title(name, hint), escape(content))


def title(name: str, hint: Markup | str = "") -> Markup:
    """The heading of a section, with an optional hint."""
    note = Markup('<p class="hint">{}</p>').format(hint) if hint else ""
    return Markup('<h2 class="title">{}</h2>{}').format(name, note)
