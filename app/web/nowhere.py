"""The page for an address that the service does not have, for browsers; programs get a problem document."""

from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse

from app.web.theme import LOGO, POLICY, chosen, style

_SCHEMES = {True: "body--dark", False: "body--light", None: ""}
_PAGE = Markup(
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>No such page · Model zoo</title>'
    '<meta name="viewport" content="width=device-width">{style}</head><body class="{scheme}"><main class="door">'
    '<div class="card"><div class="brand">{logo}<h1>This page does not exist</h1></div>'
    "<p>The service has no page at <code>{path}</code>. Check the address for a typing error, or start from one of "
    'these pages.</p><p class="actions"><a class="button primary" href="/">Models</a><a class="button" '
    'href="/jobs">Jobs</a><a class="button" href="/deployments">Deployments</a><a class="button" href="/help">Help</a>'
    "</p></div></main></body></html>"
)


def wants_page(request: Request) -> bool:
    """Whether a request comes from a browser's address bar or a link."""
    return request.method in ("GET", "HEAD") and "text/html" in request.headers.get("accept", "")


def page(request: Request) -> HTMLResponse:
    """The page, with status 404."""
    content = _PAGE.format(style=style(), logo=LOGO, scheme=_SCHEMES[chosen(request)], path=request.scope["path"][:200])
    return HTMLResponse(content, 404, {"Content-Security-Policy": POLICY})
