"""Download a file from a list of allowed hosts, with a limit of its size.

Redirects are followed one by one, and each must lead to an allowed host. Unless the rules allow private addresses, the
host name is resolved here, the address is checked, and the connection goes to exactly this address, as with webhooks.
"""

import hashlib
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote, urlsplit

import httpx

from app.errors import Invalid
from app.imports.sources import SourceError, check_host, shown
from app.sources.found import Rules
from app.webhooks.addresses import choose
from pnc_core.files import written_whole

MOST_REDIRECTS = 5
SECONDS = 30.0
"""Longest silence of a server."""


@dataclass(frozen=True)
class Fetched:
    """A file that was downloaded."""

    path: Path
    digest: str
    """SHA-256, 64 hexadecimal digits."""


def file_name(url: str) -> str:
    """The last part of a URL's path; `download` where it is empty."""
    return unquote(urlsplit(url).path).replace("\\", "/").rpartition("/")[2].lstrip(".") or "download"


def fetch(url: str, path: Path, rules: Rules, prefix: str = "") -> Fetched:
    """Download a file. A failed download leaves no file.

    Args:
        url: An http or https URL.
        path: The file to write.
        rules: Allowed hosts, largest size and progress.
        prefix: First hexadecimal digits that the SHA-256 must have.

    Raises:
        SourceError: a host is not allowed or does not answer, the file is too large, or the digest is another one.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    digest = hashlib.sha256()
    try:
        with _opened(url, rules) as response, written_whole(path) as part, part.open("wb") as file:
            total = int(response.headers.get("content-length", "0"))
            _check_size(url, total, rules)
            done = 0
            for chunk in response.iter_raw(1024 * 1024):
                done += len(chunk)
                _check_size(url, done, rules)
                file.write(chunk)
                digest.update(chunk)
                rules.report(done, total)
            if total and done != total:
                raise SourceError(f"{shown(url)}: expected {total} bytes, got {done}; import it again")
            check_digest(shown(url), digest.hexdigest(), prefix)
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise SourceError(f"{shown(url)}: expected a download, got: {reason:.200}; check the network") from None
    return Fetched(path, digest.hexdigest())


def check_digest(name: str, digest: str, prefix: str) -> None:
    """Compare a digest with its known beginning.

    Raises:
        SourceError: they differ.
    """
    if not digest.startswith(prefix):
        raise SourceError(
            f"{name}: expected a file whose SHA-256 begins with {prefix}, got {digest}; delete it and import it again"
        )


def _check_size(url: str, size: int, rules: Rules) -> None:
    if size > rules.max_bytes:
        raise SourceError(
            f"{shown(url)}: expected at most {rules.max_bytes} bytes, got {size} or more; raise the limit"
        )


@contextmanager
def _opened(url: str, rules: Rules) -> Iterator[httpx.Response]:
    """The answer of the last of a chain of redirects."""
    with httpx.Client(trust_env=rules.own_machine, timeout=SECONDS, follow_redirects=False) as client:
        place = httpx.URL(url)
        for _ in range(MOST_REDIRECTS + 1):
            _check_place(place, httpx.URL(url), rules)
            response = client.send(_request(client, place, rules), stream=True)
            try:
                if response.has_redirect_location:
                    place = place.join(response.headers["location"])
                    continue
                if response.status_code != 200:
                    got = f"{response.status_code} {response.reason_phrase}"
                    raise SourceError(f"{shown(url)}: expected a file, got {got}; check the address")
                yield response
                return
            finally:
                response.close()
    raise SourceError(f"{shown(url)}: expected at most {MOST_REDIRECTS} redirects, got more; use the last address")


def _check_place(place: httpx.URL, first: httpx.URL, rules: Rules) -> None:
    safe = place.scheme == "https" or (place.scheme == "http" and first.scheme == "http")
    if not safe:
        raise SourceError(
            f"{shown(str(first))}: expected redirects to https, got {place.scheme!r}; use another address"
        )
    check_host(place.host, rules.hosts, f"{shown(str(first))}: ")


def _request(client: httpx.Client, place: httpx.URL, rules: Rules) -> httpx.Request:
    headers = {"Accept-Encoding": "identity", "User-Agent": "pnc-zoo"}
    if rules.own_machine:
        return client.build_request("GET", place, headers=headers)
    port = place.port or (443 if place.scheme == "https" else 80)
    try:
        found = socket.getaddrinfo(place.raw_host.decode(), port, type=socket.SOCK_STREAM)
        address = choose([str(entry[4][0]) for entry in found], private=False)
    except Invalid:
        raise SourceError(f"{place.host}: expected a public address, got a private one; use another host") from None
    except OSError as error:
        raise SourceError(f"{place.host}: expected an address, got: {error.strerror}; check the network") from None
    return client.build_request(
        "GET",
        place.copy_with(host=str(address)),
        headers={**headers, "Host": place.netloc.decode()},
        extensions={"sni_hostname": place.raw_host.decode()},  # the certificate must be valid for the host name
    )
