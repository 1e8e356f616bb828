"""`python -m app.serving FD`: run serving on a listening socket inherited from the supervisor."""

import sys

from app.process.server import run_inherited

if __name__ == "__main__":
    run_inherited("serving", "app.serving.main:create_serving_app", int(sys.argv[1]))
