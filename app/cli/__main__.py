"""`python -m app.cli`: the `pnc` command where it is not installed."""

from app.cli import main

if __name__ == "__main__":
    main()
