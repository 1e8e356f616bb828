"""The short form of `make fuzz`: some requests of every operation, and some files of every kind."""

from pathlib import Path

import pytest

from tests.fuzz.files import feed
from tests.fuzz.requests import fuzz_requests
from tests.fuzz.service import running
from tests.fuzz.test_lives import test_lives_on_sqlite  # noqa: F401 - runs here, too
from tests.fuzz.test_parsing import *  # noqa: F403 - run here, too


@pytest.mark.always
def test_odd_requests_and_hostile_files_are_answered_with_problems(tmp_path: Path) -> None:
    with running(tmp_path) as service:
        found = fuzz_requests(service, examples=1, seed=0, most_cases=150)
        assert (found.server_errors, found.unauthenticated, found.schema_violations) == (0, 0, 0), found.examples
        files, refused, wrong = feed(service.url, service.secret, tmp_path, every=20)
        assert refused == files, wrong
