"""`/docs` and `/redoc`: the API's document for people, with scripts and styles that the service brings itself.

FastAPI's own pages load them from a content delivery network, whose operator could run any script with a visitor's
cookie. The files are those of the package fastapi-offline.
"""

import base64
import hashlib
import re
from functools import cache
from importlib.resources import files
from pathlib import Path

from fastapi import APIRouter
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from starlette.exceptions import HTTPException
from starlette.responses import HTMLResponse, Response

from app.api.middleware import POLICY
from app.api.scopes import PUBLIC, ScopedRoute, needs

router = APIRouter(include_in_schema=False, route_class=ScopedRoute)
DOCUMENT = "/openapi.json"
_AT = "/docs/files"
_KEPT = "public, max-age=86400"
_FILES = Path(str(files("fastapi_offline") / "static"))
_TYPES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "redoc.standalone.js": "text/javascript",
}
_LOGO = b"https://cdn.redoc.ly/redoc/logo-mini.svg"
_ICON = "data:,"
"""None: the pages, which have one, may be left out."""
_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
# Both write styles into the page; ReDoc searches in a worker that it makes of a blob.
_POLICY = (
    "default-src 'none'; script-src 'self'{hashes}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; connect-src 'self'; worker-src blob:; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'"
)


def _page(made: HTMLResponse) -> HTMLResponse:
    """FastAPI's page with a policy that lets its own inline scripts run, by their hashes, and no others."""
    html = bytes(made.body).decode()
    digests = (hashlib.sha256(script.encode()).digest() for script in _SCRIPT.findall(html))
    hashes = "".join(f" 'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return HTMLResponse(html, headers={POLICY: _POLICY.format(hashes=hashes)})


@router.get("/docs")
@needs(PUBLIC)
async def swagger() -> HTMLResponse:
    """The document in Swagger UI."""
    return _page(
        get_swagger_ui_html(
            openapi_url=DOCUMENT,
            title="Model zoo API",
            swagger_js_url=f"{_AT}/swagger-ui-bundle.js",
            swagger_css_url=f"{_AT}/swagger-ui.css",
            swagger_favicon_url=_ICON,
            swagger_ui_parameters={"validatorUrl": None},  # a service elsewhere, which would be sent the address
        )
    )


@router.get("/redoc")
@needs(PUBLIC)
async def redoc() -> HTMLResponse:
    """The document in ReDoc."""
    return _page(
        get_redoc_html(
            openapi_url=DOCUMENT,
            title="Model zoo API",
            redoc_js_url=f"{_AT}/redoc.standalone.js",
            redoc_favicon_url=_ICON,
            with_google_fonts=False,
        )
    )


@router.get(_AT + "/{name}")
@needs(PUBLIC)
def file(name: str) -> Response:
    """A script or a style sheet of the two."""
    if name not in _TYPES:
        raise HTTPException(404)
    return Response(_content(name), headers={"Cache-Control": _KEPT}, media_type=_TYPES[name])


@cache
def _content(name: str) -> bytes:
    """A file of the package; ReDoc asks its maker's host for a logo, and does without where there is none."""
    return (_FILES / name).read_bytes().replace(_LOGO, b"data:,")
