"""Where a webhook may point: nowhere inside the network that the service itself stands in.

A name is judged by what it resolves to at the moment of sending, and that very address is connected to; a name that
resolves to something else a moment later wins nothing.
"""

import ipaddress
from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit

from app.errors import Invalid

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
MAX_URL = 2000
PRIVATE = "expected an address in the public internet, got {got}; to allow this one set PNC_WEBHOOK_PRIVATE=true"
_UNICAST = ipaddress.IPv6Network("2000::/3")
"""All of IPv6 that is given out for the public internet; loopback, mapped IPv4, `fec0::/10`, `5f00::/16` and others lie
beyond it."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""Behind it a network without IPv4 sees all of IPv4; `64:ff9b:1::/48` is the same for one's own network, not public."""
_BESIDE = tuple(
    ipaddress.ip_network(text)
    for text in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
"""Kept for protocols, tunnels (Teredo, 6to4) and examples; some versions of Python call some of them global."""


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
    named = f".{host.rstrip('.')}".endswith(".localhost")
    is_hidden = named or (literal is not None and not is_public(literal))
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
    """Whether an address is one of the public internet.

    Of the kinds of IPv6 addresses that carry one of IPv4, only that of a public translator can be; the others lead
    through tunnels, or back to this machine, and no receiver needs them.
    """
    if isinstance(address, ipaddress.IPv6Address) and address in _NAT64:
        return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    is_kept = any(address in network for network in _BESIDE) or address.is_multicast or address.is_reserved
    return address.is_global and not is_kept and (address.version == 4 or address in _UNICAST)


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
