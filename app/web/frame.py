"""The frame of all pages: head, navigation, and the choice of light or dark."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from urllib.parse import unquote

from markupsafe import Markup
from nicegui import ui
from starlette.requests import Request
from starlette.responses import Response

from app.access.page import PATH
from app.errors import Unauthenticated, ZooError
from app.web.html import COPYING, empty, link, title
from app.web.theme import LOGO, THEME, chosen, style

SECTIONS = (
    ("/", "Models"),
    ("/datasets", "Datasets"),
    ("/jobs", "Jobs"),
    ("/modules", "Modules"),
    ("/deployments", "Deployments"),
)
MORE = (
    ("/webhooks", "Webhooks"),
    ("/keys", "Keys"),
    ("/audit", "Audit log"),
    ("/settings", "Settings"),
    ("/help", "Help"),
    ("/docs", "API"),
)
"""Pages that the end of each page links to."""
_INTERNAL_ERROR = "expected the service to do this, got an internal error; try again, or read the service's log"
_TOGGLE = (
    "const d=!document.body.classList.contains('body--dark');Quasar.Dark.set(d);"
    f"document.cookie='{THEME}='+(d?'dark':'light')+';path=/;max-age=31536000;samesite=strict'"
)


@contextmanager
def frame(request: Request, title: str, section: str = "") -> Iterator[None]:
    """The frame around a page's content; errors of the page's timers and handlers are shown to the visitor.

    Args:
        request: Request of the visitor.
        title: Title of the browser tab.
        section: Path of the page's section in the navigation.
    """
    ui.page_title(f"{title} · Model zoo")
    ui.add_head_html(str(style()))  # a Markup would escape what the page has already
    ui.add_head_html(str(COPYING))
    ui.add_head_html(_LANGUAGE)
    ui.dark_mode(chosen(request))
    ui.on_exception(_on_error)
    markup(_header(section), "header")
    with ui.element("main").classes("page").props('id="content" tabindex="-1"'):
        yield
    markup(_footer(section), "footer")


def markup(content: Markup, tag: str = "div") -> Any:
    """Add escaped HTML to the page; returns the element, so that its content can be replaced."""
    return ui.html(content, sanitize=False, tag=tag)


def button(text: str, on_click: Callable[..., Any] | None = None, kind: str = "plain") -> Any:
    """A button; `kind` is `plain`, `go` for the main action, or `danger` for an action that cannot be undone."""
    return ui.button(text, on_click=on_click, color=None).props("unelevated no-caps").classes(kind)


def heading(title: object, kind: str = "", note: object = "") -> Markup:
    """A page's heading, with the kind of resource above and a note below."""
    above = Markup('<span class="kind">{}</span>').format(kind) if kind else ""
    below = Markup('<div class="note">{}</div>').format(note) if note else ""
    return Markup('<div class="heading">{}<h1>{}</h1>{}</div>').format(above, title, below)


_LANGUAGE = "<script>document.documentElement.lang = 'en';</script>"
"""The template of the front end has no language, which screen readers need."""
_KINDS = {"/": "model", "/webhooks": "webhook"}
"""The kind of resource of a section, where it is not the section's name without its last letter."""


def missing(request: Request, error: Exception, section: str) -> Response:
    """The page for a resource that does not exist, with status 404.

    Args:
        request: Request of the visitor.
        error: The service's message, which is for programs; it is not shown.
        section: Path of the section in the navigation.
    """
    kind = _KINDS.get(section, section.strip("/").removesuffix("s"))
    name = unquote(request.url.path.rpartition("/")[2])[:100]
    with frame(request, "Not found", section):
        markup(heading(f"This {kind} does not exist"))
        advice = Markup("It may have been deleted, or belong to another workspace. Choose one from {}.")
        markup(empty(f"No {kind} is called “{name}”", advice.format(link(section, "the list"))))
    return ui.context.client.build_response(request, 404)


def card(name: str, note: str = "") -> ui.element:
    """A card with a title, to be entered.

    Args:
        name: The title.
        note: A sentence under the title.
    """
    made = ui.element("section").classes("card stack tight")
    with made:
        markup(title(name, note))
    return made


def notify(text: str, *, good: bool = True) -> None:
    """Show a notification; the text is not HTML."""
    ui.notify(text, type="positive" if good else "negative", position="bottom", multi_line=True, close_button="Close")


def tell(error: Exception) -> None:
    """Show an error to the visitor; a visitor whose key has ended is sent to the sign-in page."""
    if not isinstance(error, Unauthenticated):
        notify(str(error), good=False)
        return
    for element in ui.context.client.elements.values():
        if isinstance(element, ui.timer):
            element.deactivate()
    ui.navigate.to(PATH)


def _on_error(error: Exception) -> None:
    """Show an uncaught error of a timer or handler; NiceGUI logs it and calls this in the context of the page."""
    tell(error if isinstance(error, ZooError) else RuntimeError(_INTERNAL_ERROR))


def _links(pages: Sequence[tuple[str, str]], section: str) -> Markup:
    """Links to pages, each a path and a name; the link to the section is marked."""
    return Markup("").join(
        Markup('<a href="{}"{}>{}</a>').format(path, Markup(' aria-current="page"') if path == section else "", name)
        for path, name in pages
    )


def _footer(section: str) -> Markup:
    return Markup('<nav aria-label="More">{}</nav>').format(_links(MORE, section))


def _header(section: str) -> Markup:
    return Markup(
        '<a class="skip" href="#content">Skip to the content</a><div class="top"><a class="brand" href="/">{}'
        '<span>Model zoo</span></a><nav aria-label="Main">{}</nav>'
        '<a class="button primary" href="/new">New job</a>'
        '<button type="button" class="theme" onclick="{}" aria-label="Switch between light and dark" '
        'title="Switch between light and dark">◐</button></div>'
    ).format(LOGO, _links(SECTIONS, section), _TOGGLE)
