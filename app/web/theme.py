"""How pages look: the style sheet, the mark, and a visitor's choice of light or dark."""

from functools import cache
from pathlib import Path

from markupsafe import Markup
from starlette.requests import Request

THEME = "pnc-theme"
"""Cookie that holds a visitor's choice of `light` or `dark`; without it the system's choice holds."""
LOGO = Markup(
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="8" fill="#0b5cad"/>'
    '<path d="M7 8h8v8H7zM17 16h8v8h-8z" fill="#fff"/><path d="M15 12h6v4" stroke="#ffb000" stroke-width="2.5" '
    'fill="none"/></svg>'
)


def chosen(request: Request) -> bool | None:
    """Whether the visitor wants it dark; None: as the system has it."""
    return {"dark": True, "light": False}.get(request.cookies.get(THEME, ""))


@cache
def style() -> Markup:
    """The style sheet of all pages."""
    return Markup("<style>{}</style>").format(Markup((Path(__file__).parent / "style.css").read_text()))  # noqa: S704
