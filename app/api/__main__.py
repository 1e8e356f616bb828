"""`python -m app.api FD`: run the API on a listening socket inherited from the supervisor."""

import sys

from app.process.server import run_inherited

if __name__ == "__main__":
    run_inherited("api", "app.main:create_app", int(sys.argv[1]))
