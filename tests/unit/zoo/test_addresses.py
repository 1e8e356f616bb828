import pytest

from app.zoo.addresses import check_url, choose
from app.zoo.errors import Invalid

PUBLIC = ["https://hooks.example/pnc?a=1", "http://93.184.215.14:8080/", "https://[2606:2800:21f:cb07::1]/x"]
PRIVATE_URLS = [
    "http://localhost:8000/", "http://a.localhost/", "http://127.0.0.1/", "http://10.1.2.3/", "http://172.16.0.1/",
    "http://192.168.1.1/", "http://169.254.169.254/latest/meta-data", "http://0.0.0.0/", "http://100.64.0.1/",
    "http://[::1]/", "http://[fe80::1]/", "http://[fd00::1]/", "http://224.0.0.1/", "http://255.255.255.255/",
    "http://[::ffff:127.0.0.1]/", "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/",
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
