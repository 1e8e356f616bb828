"""Rules for addresses of webhooks: they must not be inside the service's own network.

A host name is resolved when a message is sent. The resolved address is checked, and the connection goes to exactly this
address, so a name that later resolves to a private address (DNS rebinding) does not reach the network.
"""

import ipaddress
from collections.abc import Sequence
from urllib.parse import SplitResult, urlsplit

from app.errors import Invalid

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
MAX_URL = 2000
"""Limit of characters of a URL."""
PRIVATE = "expected an address in the public internet, got {got}; to allow this one set PNC_WEBHOOK_PRIVATE=true"
_UNICAST = ipaddress.IPv6Network("2000::/3")
"""The range of public IPv6 addresses. Loopback, mapped IPv4, `fec0::/10`, `5f00::/16` and others are outside."""
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
"""Prefix of NAT64, with which IPv6-only networks reach public IPv4 addresses. `64:ff9b:1::/48` is its private form."""
_RESERVED = tuple(
    ipaddress.ip_network(text)
    for text in ("192.0.0.0/24", "192.88.99.0/24", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20")
)
"""Ranges for protocols, tunnels (Teredo, 6to4) and documentation; some versions of Python count some as global."""


def check_url(url: str, *, private: bool) -> str:
    """Check the URL of a webhook without resolving its host name, and return the URL.

    Args:
        url: URL of a webhook.
        private: Whether private addresses are allowed.

    Raises:
        Invalid: the URL is malformed, or contains an address that is not public.
    """
    parts = _split(url)
    if parts.username is not None or parts.password is not None or parts.fragment:
        detail = (
            "expected a URL without user, password and #fragment, got one that has some; receivers can verify the "
            "signature instead"
        )
        raise _invalid("invalid_url", detail)
    host = parts.hostname or ""
    literal = _literal(host)
    named = f".{host.rstrip('.')}".endswith(".localhost")
    is_hidden = named or (literal is not None and not is_public(literal))
    if is_hidden and not private:
        raise _invalid("private_address", PRIVATE.format(got=host))
    return url


def choose(resolved: Sequence[str], *, private: bool) -> Address:
    """The address to connect to: the first one of a resolved host name.

    Args:
        resolved: Numeric addresses of the host name, at least one.
        private: Whether private addresses are allowed.

    Raises:
        Invalid: one of the addresses is not public. One is enough, because a mix suggests an attack.
    """
    addresses = [ipaddress.ip_address(text.partition("%")[0]) for text in resolved]
    hidden = [address for address in addresses if not is_public(address)]
    if hidden and not private:
        raise _invalid("private_address", PRIVATE.format(got=hidden[0]))
    return addresses[0]


def is_public(address: Address) -> bool:
    """Whether an address belongs to the public internet.

    Of the IPv6 addresses that contain an IPv4 address, only NAT64 addresses can be public. The others lead through
    tunnels or back to this machine, and no receiver needs them.
    """
    if isinstance(address, ipaddress.IPv6Address) and address in _NAT64:
        return is_public(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    is_special = any(address in network for network in _RESERVED) or address.is_multicast or address.is_reserved
    return address.is_global and not is_special and (address.version == 4 or address in _UNICAST)


def _split(url: str) -> SplitResult:
    expected = f"expected https://host/path or http://host/path, ASCII, at most {MAX_URL} characters"
    try:
        parts = urlsplit(url)
        is_complete = parts.hostname and parts.port != 0 and parts.scheme in ("http", "https")
    except ValueError as error:
        raise _invalid("invalid_url", f"{expected}, got {url!r:.80} ({error})") from None
    if not is_complete or not url.isascii() or not url.isprintable() or " " in url or len(url) > MAX_URL:
        raise _invalid("invalid_url", f"{expected}, got {url!r:.80}")
    return parts


def _literal(host: str) -> Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def _invalid(code: str, detail: str) -> Invalid:
    return Invalid.at("/url", code, detail)
