"""`/sign-in` exchanges a key for a short-lived key in the browser's cookie; `/sign-out` revokes the browser's key."""

from urllib.parse import parse_qs

from markupsafe import Markup
from sqlalchemy.orm import Session
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from app.access import audit, keys
from app.access.keys import COOKIE, SIGNED_IN, Caller
from app.errors import ZooError
from app.process.threads import CHANGES
from app.web.html import problem
from app.web.theme import LOGO, chosen, style
from app.zoo import Zoo

PATH, LEAVE = "/sign-in", "/sign-out"
MOST_BYTES = 4096
"""Limit of the form's size; a key has 55 characters."""
_PAGE = Markup(
    '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Sign in · Model zoo</title>'
    '<meta name="viewport" content="width=device-width">{style}</head><body class="{scheme}"><main class="door">'
    '<div class="card"><div class="brand">{logo}<h1>Model zoo</h1></div>{fault}<form method="post">'
    '<label for="key">Key</label><input id="key" name="key" type="password" autocomplete="off" required autofocus>'
    '<button type="submit" class="button primary">Sign in</button></form><p class="hint note">Make a key with '
    "<code>pnc keys create</code>; the browser stays signed in for half a day.</p></div></main></body></html>"
)
_SCHEMES = {True: "body--dark", False: "body--light", None: ""}


def _page(request: Request, status: int = 200, fault: Markup | str = "") -> HTMLResponse:
    scheme = _SCHEMES[chosen(request)]
    return HTMLResponse(_PAGE.format(style=style(), logo=LOGO, scheme=scheme, fault=fault), status)


async def answer(request: Request, zoo: Zoo) -> Response:
    """Show the sign-in page, sign a browser in, or sign it out."""
    if request.url.path == LEAVE:
        return await _leave(request, zoo)
    if request.method != "POST":
        return _page(request)
    try:
        form = await _form(request)
        given = parse_qs(form, max_num_fields=4).get("key", [""])[0].strip()
    except ValueError:
        return _page(request, 422, problem("expected a form with one field, key, got another"))
    try:
        secret = await CHANGES.run(_sign_in, request, zoo, given)
    except ZooError as error:
        return _page(request, 401, problem(str(error)))
    response = RedirectResponse("/", 303)
    secure = request.url.scheme == "https"
    seconds = int(SIGNED_IN.total_seconds())
    response.set_cookie(COOKIE, secret, max_age=seconds, httponly=True, samesite="strict", secure=secure)
    return response


async def _form(request: Request) -> str:
    """The body of the form.

    Raises:
        ValueError: the body is longer than `MOST_BYTES`.
    """
    form = b""
    async for part in request.stream():
        form += part
        if len(form) > MOST_BYTES:
            raise ValueError(f"expected a form of at most {MOST_BYTES} bytes, got more")
    return form.decode("latin-1")


def _sign_in(request: Request, zoo: Zoo, given: str) -> str:
    with zoo.database.read() as session:
        caller = keys.authenticate(session, given)
    with zoo.seen_by(caller).database.write() as session:
        secret = keys.sign_in(session, caller)[1]
        _note(session, request, caller, "sign_in")
        return secret


def _note(session: Session, request: Request, caller: Caller, action: str) -> None:
    """Write to the audit log that a browser's key was made or revoked."""
    audit.note(
        session,
        caller,
        action=action,
        method=request.method,
        path=request.scope["path"],
        address=request.client.host if request.client else "",
        outcome="303",
        request_id=request.scope.get("state", {}).get("request_id", ""),
    )


async def _leave(request: Request, zoo: Zoo) -> Response:
    """Sign a browser out. A link from another site cannot do so: its request lacks the `SameSite=Strict` cookie."""
    secret = request.cookies.get(COOKIE)
    if secret is not None:
        await CHANGES.run(_sign_out, request, zoo, secret)
    response = RedirectResponse(PATH, 303)
    response.delete_cookie(COOKIE)
    return response


def _sign_out(request: Request, zoo: Zoo, secret: str) -> None:
    try:
        with zoo.database.read() as session:
            caller: Caller = keys.authenticate(session, secret)
        with zoo.seen_by(caller).database.write() as session:
            keys.revoke(session, caller.key_id or "")
            _note(session, request, caller, "sign_out")
    except ZooError:  # the key was revoked or has expired already
        return
