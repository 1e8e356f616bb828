"""Boxes in lists that pick what to compare, and the button that compares it."""

from markupsafe import Markup

MOST = 6
"""Jobs or modules that are compared at once."""
COMPARING = Markup(
    '<button type="button" class="button" data-compare disabled>Compare</button>'
    '<span class="faint">Tick two to six in the list</span>'
)
PICKING = Markup(
    "<script>(() => {{ const picked = new Set();"
    "const show = () => {{"
    "for (const box of document.querySelectorAll('.pick')) {{ box.checked = picked.has(box.value);"
    "box.disabled = picked.size >= {0} && !picked.has(box.value); }}"
    "const go = document.querySelector('[data-compare]'); if (!go) return; go.disabled = picked.size < 2;"
    "const label = picked.size ? `Compare ${{picked.size}}` : 'Compare';"
    # Only a change: the observer below sees it, and calls this function again.
    "if (go.textContent !== label) go.textContent = label; }};"
    "document.addEventListener('change', (event) => {{ if (!event.target.matches('.pick')) return;"
    "event.target.checked ? picked.add(event.target.value) : picked.delete(event.target.value); show(); }});"
    "document.addEventListener('click', (event) => {{ if (event.target.closest('[data-compare]'))"
    "location.href = '/compare?ids=' + [...picked].join(','); }});"
    "new MutationObserver(show).observe(document, {{childList: true, subtree: true}});"
    "}})();</script>"
).format(MOST)
"""Remembers the picked ids while a list shows other rows or refreshes itself."""


def pickable(identifier: str) -> Markup:
    """A box that picks a row.

    Args:
        identifier: Id of a job or a module.
    """
    return Markup('<input type="checkbox" class="pick" value="{0}" aria-label="Compare {0}">').format(identifier)
