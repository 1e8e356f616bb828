"""What all pages have around them: head, navigation, light and dark."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from markupsafe import Markup
from nicegui import ui
from starlette.requests import Request
from starlette.responses import Response

from app.access.page import PATH
from app.errors import Unauthenticated, ZooError
from app.web.html import empty, link
from app.web.theme import LOGO, THEME, chosen, style

SECTIONS = (
    ("/", "Models"),
    ("/datasets", "Datasets"),
    ("/jobs", "Jobs"),
    ("/modules", "Modules"),
    ("/deployments", "Deployments"),
)
_FELL = "expected the service to do this, got an error of its own; try again, or look into the service's log"
_TOGGLE = (
    "const d=!document.body.classList.contains('body--dark');Quasar.Dark.set(d);"
    f"document.cookie='{THEME}='+(d?'dark':'light')+';path=/;max-age=31536000;samesite=strict'"
)


@contextmanager
def frame(request: Request, title: str, section: str = "") -> Iterator[None]:
    """Everything around a page's own content; what its timers and handlers raise is told to its visitor.

    Args:
        request: The visitor's.
        title: Of the browser's tab.
        section: Path of the part of the navigation that the page belongs to.
    """
    ui.page_title(f"{title} · Model zoo")
    ui.add_head_html(style())
    ui.dark_mode(chosen(request))
    ui.on_exception(_fell)
    markup(_header(section), "header")
    with ui.element("main").classes("page").props('id="content" tabindex="-1"'):
        yield


def markup(content: Markup, tag: str = "div") -> Any:
    """Put escaped HTML on the page; returns the element, whose content may be set again."""
    return ui.html(content, sanitize=False, tag=tag)


def button(text: str, on_click: Callable[..., Any] | None = None, kind: str = "plain") -> Any:
    """A button: `go` is what most people came for, `danger` cannot be taken back."""
    return ui.button(text, on_click=on_click, color=None).props("unelevated no-caps").classes(kind)


def heading(title: object, kind: str = "", note: object = "") -> Markup:
    """A page's own title, with what kind of thing it is above and a remark below."""
    above = Markup('<span class="kind">{}</span>').format(kind) if kind else ""
    below = Markup('<div class="note">{}</div>').format(note) if note else ""
    return Markup('<div class="heading">{}<h1>{}</h1>{}</div>').format(above, title, below)


def missing(request: Request, error: Exception, section: str) -> Response:
    """The page that says that there is no such thing."""
    with frame(request, "Not found", section):
        markup(heading("There is no such thing here"))
        markup(empty(str(error), Markup("Go back to {}.").format(link(section, "the list"))))
    return ui.context.client.build_response(request, 404)


def notify(text: str, *, good: bool = True) -> None:
    """Tell the visitor what happened; text only."""
    ui.notify(text, type="positive" if good else "negative", position="bottom", multi_line=True, close_button="Close")


def tell(error: Exception) -> None:
    """Tell the visitor what went wrong; whose key has ended is led to where one signs in."""
    if not isinstance(error, Unauthenticated):
        notify(str(error), good=False)
        return
    for element in ui.context.client.elements.values():
        if isinstance(element, ui.timer):
            element.deactivate()
    ui.navigate.to(PATH)


def _fell(error: Exception) -> None:
    """What a timer or a handler let through; NiceGUI logs it, and calls this as the page that it belongs to."""
    tell(error if isinstance(error, ZooError) else RuntimeError(_FELL))


def _header(section: str) -> Markup:
    links = Markup("").join(
        Markup('<a href="{}"{}>{}</a>').format(path, Markup(' aria-current="page"') if path == section else "", name)
        for path, name in SECTIONS
    )
    return Markup(
        '<a class="skip" href="#content">Skip to the content</a><div class="top"><a class="brand" href="/">{}'
        '<span>Model zoo</span></a><nav aria-label="Main">{}</nav>'
        '<a class="button primary" href="/new">New job</a>'
        '<button type="button" class="theme" onclick="{}" aria-label="Switch between light and dark" '
        'title="Switch between light and dark">◐</button></div>'
    ).format(LOGO, links, _TOGGLE)
