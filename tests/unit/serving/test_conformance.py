"""Triton's own client, check by check."""

from benchmarks import conformance
from tests.unit.serving.world import NAME, World


def test_31_of_31_checks_of_triton_s_client_pass(url: str, here: World) -> None:
    found = conformance.run(f"http://{url}", NAME, here.modules[1])
    assert len(found) == 31
    assert {name: wrong for name, wrong in found.items() if wrong} == {}


def test_a_server_that_does_not_conform_fails_its_checks(url: str, here: World) -> None:
    found = conformance.run(f"http://{url}", NAME, "mod_nobody")
    failed = [name for name, wrong in found.items() if wrong]
    assert failed == [
        "loading attaches",
        "a loaded model is listed",
        "a request can name the module alone",
        "unloading detaches",
    ]
