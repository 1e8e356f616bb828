r"""One spelling of every path, so that the path that is judged is the path that is matched and sent on.

Clients, proxies and servers normalise paths, each in its own way: `.` and `..` are removed, slashes merged, `%2e` and
`%2F` decoded. Wherever two of them disagree, a rule that was checked for one path lets another one pass. So the service
takes a path in one spelling, and no other:

- parts are separated by single slashes, with none at the end;
- no part is `.` or `..`, and none holds a slash, a backslash, a percent sign or a control character, encoded or not;
- what needs no percent-encoding (letters, digits and `- . _ ~`) is not encoded.

Reserved characters that names hold may be written either way (`digits+mod_1` or `digits%2Bmod_1`): they are decoded
once, here and for good.
"""

import re
from urllib.parse import quote, unquote

from starlette.types import Scope

from app.errors import Invalid

CODE = "invalid_path"
_SUB_DELIMITERS = "!$&'()*+,;=:@"
_PART = re.compile(rf"(?:[A-Za-z0-9._~{re.escape(_SUB_DELIMITERS)}-]|%[0-9A-Fa-f]{{2}})+\Z")
"""RFC 3986's `segment-nz`: what a part may be made of."""
_ENCODED = re.compile(r"%([0-9A-Fa-f]{2})")
_NEVER_ENCODED = re.compile(r"[A-Za-z0-9._~/\\%\x01-\x1f\x7f-]\Z")
"""Needless, or in no name; a line feed at its end is overlooked by routes. NUL has an answer of its own."""
_DOTS = (".", "..")
_ENDS_WITH_SLASH = frozenset({"/_nicegui_ws/socket.io/"})
"""Socket.IO's clients write it so."""


def fault(scope: Scope) -> str | None:
    """Why a request's path is not spelled as it should be, as the detail of a problem; None: it is.

    Args:
        scope: Of HTTP or a websocket; a server that gives no `raw_path` has decoded `path` once.
    """
    path: str = scope["path"]
    raw = (scope.get("raw_path") or quote(path, safe="/" + _SUB_DELIMITERS).encode()).decode("latin-1")
    why = _why(raw, path)
    if why is None:
        return None
    return (
        f"expected a path of parts between single slashes, none of them . or .., and nothing percent-encoded that need "
        f"not be, got {raw!r:.200} ({why}); write the path as /openapi.json has it"
    )


def join(*parts: str) -> str:
    """A path in its one spelling, in which every part stays one part.

    Raises:
        Invalid: a part would lead elsewhere.
    """
    for part in parts:
        if part in ("", *_DOTS) or any(character in part for character in "/\\%"):
            raise Invalid.at("path", CODE, f"expected a name or an id, got {part!r:.80}; take one from a list")
    return "".join("/" + quote(part, safe=_SUB_DELIMITERS) for part in parts)


def _why(raw: str, path: str) -> str | None:
    if not raw.startswith("/"):
        return "no slash at the beginning"
    parts = raw[1:].split("/")
    if raw == "/" or raw in _ENDS_WITH_SLASH:
        parts.pop()
    found = next((why for part in parts if (why := _why_not(part)) is not None), None)
    if found is None and unquote(raw) != path:
        return "decoded otherwise by the server"
    return found


def _why_not(part: str) -> str | None:
    """What is wrong with one part."""
    if part == "":
        return "an empty part: two slashes, or one at the end"
    if part in _DOTS:
        return f"a part {part}"
    if not _PART.match(part):
        return "a character that no path has"
    needless = next((code for code in _ENCODED.finditer(part) if _NEVER_ENCODED.match(chr(int(code[1], 16)))), None)
    if needless is not None:
        return f"the code {needless[0]}"
    try:
        unquote(part, errors="strict")
    except UnicodeDecodeError:
        return "codes that are no UTF-8"
    return None
