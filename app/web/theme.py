"""Style sheet, logo, and a visitor's choice of the light or dark scheme."""

from functools import cache
from pathlib import Path

from markupsafe import Markup
from starlette.requests import Request

THEME = "pnc-theme"
"""Cookie with the visitor's choice of `light` or `dark`; without the cookie the system's scheme is used."""
# Vue compiles templates in the browser, which needs inline scripts and eval. All files come from this service.
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; "
    "object-src 'none'; form-action 'self'"
)
LOGO = Markup(
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32"><rect width="32" height="32" rx="8" fill="#0b5cad"/>'
    '<path d="M7 8h8v8H7zM17 16h8v8h-8z" fill="#fff"/><path d="M15 12h6v4" stroke="#ffb000" stroke-width="2.5" '
    'fill="none"/></svg>'
)


def chosen(request: Request) -> bool | None:
    """Whether the visitor has chosen the dark scheme; None: the visitor has not chosen."""
    return {"dark": True, "light": False}.get(request.cookies.get(THEME, ""))


@cache
def style() -> Markup:
    """The style sheet of all pages."""
    return Markup("<style>{}</style>").format(Markup((Path(__file__).parent / "style.css").read_text()))  # noqa: S704
