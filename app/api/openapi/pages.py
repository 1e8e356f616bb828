"""`/docs` and `/redoc`: pages that show the OpenAPI document, with scripts and styles from this service.

FastAPI's own pages load scripts from a content delivery network, whose operator could run any script with a visitor's
cookie. The files come from the package fastapi-offline.
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
from app.api.scopes import DOCUMENT, PUBLIC, ScopedRoute, needs

router = APIRouter(include_in_schema=False, route_class=ScopedRoute)
_FILES_PATH = "/docs/files"
_CACHE = "public, max-age=86400"
_FILES = Path(str(files("fastapi_offline") / "static"))
_TYPES = {
    "swagger-ui-bundle.js": "text/javascript",
    "swagger-ui.css": "text/css",
    "redoc.standalone.js": "text/javascript",
}
_LOGO = b"https://cdn.redoc.ly/redoc/logo-mini.svg"
_ICON = "data:,"
"""An empty icon. The service has an icon only with its web pages, which a setting can turn off."""
_SCRIPT = re.compile(r"<script>(.*?)</script>", re.DOTALL)
# Swagger UI and ReDoc write styles into the page. ReDoc searches in a worker that it loads from a blob URL.
_POLICY = (
    "default-src 'none'; script-src 'self'{hashes}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
    "font-src 'self' data:; connect-src 'self'; worker-src blob:; frame-ancestors 'none'; base-uri 'none'; "
    "form-action 'none'"
)


def _page(made: HTMLResponse) -> HTMLResponse:
    """FastAPI's page with a Content-Security-Policy that allows only its own inline scripts, by their hashes."""
    html = bytes(made.body).decode()
    digests = (hashlib.sha256(script.encode()).digest() for script in _SCRIPT.findall(html))
    hashes = "".join(f" 'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return HTMLResponse(html, headers={POLICY: _POLICY.format(hashes=hashes)})


@router.get("/docs")
@needs(PUBLIC)
async def swagger() -> HTMLResponse:
    """The OpenAPI document in Swagger UI."""
    return _page(
        get_swagger_ui_html(
            openapi_url=DOCUMENT,
            title="Model zoo API",
            swagger_js_url=f"{_FILES_PATH}/swagger-ui-bundle.js",
            swagger_css_url=f"{_FILES_PATH}/swagger-ui.css",
            swagger_favicon_url=_ICON,
            swagger_ui_parameters={"validatorUrl": None},  # no request to the public validator of Swagger
        )
    )


@router.get("/redoc")
@needs(PUBLIC)
async def redoc() -> HTMLResponse:
    """The OpenAPI document in ReDoc."""
    return _page(
        get_redoc_html(
            openapi_url=DOCUMENT,
            title="Model zoo API",
            redoc_js_url=f"{_FILES_PATH}/redoc.standalone.js",
            redoc_favicon_url=_ICON,
            with_google_fonts=False,
        )
    )


@router.get(_FILES_PATH + "/{name}")
@needs(PUBLIC)
def file(name: str) -> Response:
    """A script or a style sheet of the two pages."""
    if name not in _TYPES:
        raise HTTPException(404)
    return Response(_content(name), headers={"Cache-Control": _CACHE}, media_type=_TYPES[name])


@cache
def _content(name: str) -> bytes:
    """A file of the package, without the URL from which ReDoc would load its logo."""
    return (_FILES / name).read_bytes().replace(_LOGO, b"data:,")
