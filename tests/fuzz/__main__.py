"""`python -m tests.fuzz`: all fuzz tests; the last line is `FUZZ` and one JSON object.

--examples N    examples per operation and phase of schemathesis; default: until 10,000 requests are sent
--seed N        seed of the requests
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.fuzz.files import feed
from tests.fuzz.requests import fuzz_requests
from tests.fuzz.service import running

LEAST = 10_000
MACHINES = ("tests/fuzz", "tests/integration/postgres/test_lives.py")


def main() -> None:
    """Send requests and files, then run the state machines."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--examples", type=int)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    result: dict[str, int] = {"cases": 0, "server_errors": 0, "schema_violations": 0, "unauthenticated": 0}
    round_ = 0
    while round_ == 0 or (given.examples is None and result["cases"] < LEAST):
        with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as service:
            found = fuzz_requests(service, examples=given.examples or 30, seed=given.seed + round_)
            for name in result:
                result[name] += getattr(found, name)
            print(f"round {round_}: {found.cases} requests {dict(found.phases)}", flush=True)
            print("\n".join(found.examples), flush=True)
        round_ += 1
    with tempfile.TemporaryDirectory() as folder, running(Path(folder)) as service:
        files, refused, wrong = feed(service.url, service.secret, Path(folder))
        print("\n".join(wrong), flush=True)
    environment = {**os.environ, "PNC_FUZZ": "long"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *MACHINES]
    lives = subprocess.run(command, env=environment, check=False).returncode
    print("FUZZ " + json.dumps({**result, "corpus_files": files, "corpus_refused": refused}), flush=True)
    bad = result["server_errors"] + result["schema_violations"] + result["unauthenticated"] + (files - refused) + lives
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
