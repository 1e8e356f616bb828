"""`python -m app.cli`: the `pnc` command without an installed script."""

from app.cli import main

if __name__ == "__main__":
    main()
