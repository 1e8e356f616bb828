import ipaddress

import pytest

from app.errors import Invalid
from app.webhooks.addresses import check_url, choose, is_public

PUBLIC = ["https://hooks.example/pnc?a=1", "http://93.184.215.14:8080/", "https://[2606:2800:21f:cb07::1]/x"]
PRIVATE_URLS = [
    "http://localhost:8000/", "http://a.localhost/", "http://127.0.0.1/", "http://10.1.2.3/", "http://172.16.0.1/",
    "http://192.168.1.1/", "http://169.254.169.254/latest/meta-data", "http://0.0.0.0/", "http://100.64.0.1/",
    "http://[::1]/", "http://[fe80::1]/", "http://[fd00::1]/", "http://224.0.0.1/", "http://255.255.255.255/",
    "http://localhost./", "http://a.localhost./", "http://[::127.0.0.1]/", "http://[fec0::1]/", "http://[5f00::1]/",
    "http://[64:ff9b:1::7f00:1]/", "http://[::ffff:127.0.0.1]/", "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/",
]  # fmt: skip
NO_URLS = [
    "", "hooks.example", "ftp://hooks.example/", "file:///etc/passwd", "https://", "https:///path", "https://a b/",
    "https://user:secret@hooks.example/", "https://hooks.example/#part", "https://hooks.example:99999/",
    "https://hooks.example:0/", "https://hooks.example/\n", "https://höks.example/", "https://[::1/",
    "https://hooks.example/" + "a" * 2000,
]  # fmt: skip


@pytest.mark.parametrize("url", PUBLIC)
def test_public_addresses_are_taken(url: str) -> None:
    assert check_url(url, private=False) == url


@pytest.mark.parametrize("url", PRIVATE_URLS)
def test_private_addresses_are_refused_unless_allowed(url: str) -> None:
    with pytest.raises(Invalid, match="PNC_WEBHOOK_PRIVATE"):
        check_url(url, private=False)
    assert check_url(url, private=True) == url


@pytest.mark.parametrize("url", NO_URLS)
@pytest.mark.parametrize("private", [False, True])
def test_what_is_no_url_is_refused(url: str, private: bool) -> None:
    with pytest.raises(Invalid, match="expected") as caught:
        check_url(url, private=private)
    assert caught.value.problems[0].pointer == "/url"


def test_a_name_is_judged_by_all_that_it_resolves_to() -> None:
    assert str(choose(["93.184.215.14", "2606:2800:21f:cb07::1"], private=False)) == "93.184.215.14"
    for resolved in (["127.0.0.1"], ["93.184.215.14", "10.0.0.1"], ["fe80::1%eth0"], ["::ffff:10.0.0.1"]):
        with pytest.raises(Invalid, match="public internet"):
            choose(resolved, private=False)
    assert str(choose(["127.0.0.1"], private=True)) == "127.0.0.1"


EMBEDDED = {
    "mapped": lambda v4: 0xFFFF << 32 | v4,
    "compatible": lambda v4: v4,
    "translated": lambda v4: 0xFFFF << 48 | v4,
    "6to4": lambda v4: 0x2002 << 112 | v4 << 80,
    "Teredo server": lambda v4: 0x20010000 << 96 | v4 << 64,
    "Teredo client": lambda v4: 0x20010000 << 96 | (v4 ^ 0xFFFFFFFF),
    "NAT64": lambda v4: 0x64FF9B << 96 | v4,
    "NAT64 of one's own": lambda v4: 0x64FF9B << 96 | 1 << 80 | v4,
    "NAT64 of one's own, /48": lambda v4: 0x64FF9B << 96 | 1 << 80 | (v4 >> 16) << 64 | (v4 & 0xFFFF) << 40,
}
"""Kinds of IPv6 addresses that carry one of IPv4."""
HIDDEN_V4 = (
    "0.0.0.0", "0.1.2.3", "10.0.0.1", "100.64.0.1", "127.0.0.1", "127.255.255.254", "169.254.169.254", "172.31.255.255",
    "192.0.0.1", "192.0.0.9", "192.0.0.170", "192.0.2.1", "192.88.99.1", "192.168.0.1", "198.18.0.1", "198.51.100.1",
    "203.0.113.1", "224.0.0.1", "239.255.255.255", "240.0.0.1", "255.255.255.255",
)  # fmt: skip
HIDDEN_V6 = (
    "::", "::1", "64:ff9b:1::1", "64:ff9b:1:ffff:ffff:ffff:808:808", "100::1", "100:0:0:1::1", "200::1", "400::1",
    "1000::1", "2001::1", "2001:1::1", "2001:2::1", "2001:3::1", "2001:4:112::1", "2001:10::1", "2001:20::1",
    "2001:30::1", "2001:db8::1", "2002::1", "3fff::1", "3fff:fff::1", "4000::1", "5f00::1", "5f00:ffff::1", "8000::1",
    "c000::1", "e000::1", "fc00::1", "fdff::1", "fe00::1", "fe80::1", "febf::1", "fec0::1", "feff::1", "ff02::1",
    "ff0e::1",
)  # fmt: skip
OPEN = (
    "1.1.1.1",
    "8.8.8.8",
    "93.184.215.14",
    "2000::1",
    "2001:200::1",
    "2606:2800:21f:cb07::1",
    "2a00:1450::1",
    "3ffe::1",
)


@pytest.mark.parametrize("text", HIDDEN_V4 + HIDDEN_V6)
def test_what_is_kept_for_something_else_is_not_public(text: str) -> None:
    assert not is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("text", OPEN)
def test_what_is_given_out_for_the_internet_is_public(text: str) -> None:
    assert is_public(ipaddress.ip_address(text))


@pytest.mark.parametrize("kind", EMBEDDED)
@pytest.mark.parametrize("inner", [*HIDDEN_V4, "8.8.8.8"])
def test_an_address_inside_another_makes_none_public_but_behind_a_public_translator(kind: str, inner: str) -> None:
    address = ipaddress.IPv6Address(EMBEDDED[kind](int(ipaddress.IPv4Address(inner))))
    assert is_public(address) is (kind == "NAT64" and inner == "8.8.8.8")
    assert is_public(ipaddress.ip_address(str(address))) is is_public(address)
