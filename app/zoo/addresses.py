"""Where a webhook may point: nowhere inside the network that the service itself stands in.

A name is judged by what it resolves to at the moment of sending, and that very address is connected to; a name that
resolves to something else a moment later wins nothing.
"""

import ipaddress
from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit

from app.zoo.errors import Invalid

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
MAX_URL = 2000
PRIVATE = "expected an address in the public internet, got {got}; to allow this one set PNC_WEBHOOK_PRIVATE=true"
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


def check_url(url: str, *, private: bool) -> str:
    """The URL itself, when messages may be sent to it as far as it alone can tell.

    Args:
        url: Of a webhook.
        private: Whether addresses of one's own network are allowed.

    Raises:
        Invalid: it is none, or names an address that is not public.
    """
    parts = _split(url)
    if parts.username is not None or parts.password is not None or parts.fragment:
        detail = "expected a URL without user, password and #fragment, got one with; the signature says who sends"
        raise _invalid("invalid_url", detail)
    host = parts.hostname or ""
    literal = _literal(host)
    is_hidden = host == "localhost" or host.endswith(".localhost") or (literal is not None and not is_public(literal))
    if is_hidden and not private:
        raise _invalid("private_address", PRIVATE.format(got=host))
    return url


def choose(resolved: Sequence[str], *, private: bool) -> Address:
    """The address to connect to, of those that a name has resolved to.

    Args:
        resolved: Numeric addresses, at least one.
        private: Whether addresses of one's own network are allowed.

    Raises:
        Invalid: one of them is not public; a name that mixes both is up to no good.
    """
    addresses = [ipaddress.ip_address(text.partition("%")[0]) for text in resolved]
    hidden = [address for address in addresses if not is_public(address)]
    if hidden and not private:
        raise _invalid("private_address", PRIVATE.format(got=hidden[0]))
    return addresses[0]


def is_public(address: Address) -> bool:
    """Whether an address is one of the public internet, also the one that it may carry inside."""
    inner = _inside(address)
    return address.is_global and not address.is_multicast and (inner is None or is_public(inner))


def _inside(address: Address) -> Address | None:
    """The IPv4 address that some kinds of IPv6 addresses lead to."""
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)


def _split(url: str) -> SplitResult:
    expected = f"expected https://host/path or http://host/path, ASCII, at most {MAX_URL} characters"
    try:
        parts = urlsplit(url)
        is_one = parts.hostname and parts.port != 0 and parts.scheme in ("http", "https")
    except ValueError as error:
        raise _invalid("invalid_url", f"{expected}, got {url!r:.80} ({error})") from None
    if not is_one or not url.isascii() or not url.isprintable() or " " in url or len(url) > MAX_URL:
        raise _invalid("invalid_url", f"{expected}, got {url!r:.80}")
    return parts


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _invalid(code: str, detail: str) -> Invalid:
    return Invalid.at("/url", code, detail)
