"""`python -m tests.browser.pictures`: makes the documentation's screenshots from those of the tests."""

from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.progress import track

from tests.browser.conftest import SCHEMES, SCREENSHOTS

SHOWN = Path(__file__).parents[2] / "docs" / "screenshots"
COLOURS = 256
"""Colours of a screenshot. More make the file three times larger without a visible gain; with 128 some colours are
lost."""
NARROW = ("new-job",)
"""Pages with a screenshot of a narrow screen as well."""


def main() -> None:
    """Write the screenshots to the documentation with fewer colours; a missing screenshot is an error."""
    SHOWN.mkdir(exist_ok=True)
    wide = sorted(SCREENSHOTS.glob("*-1280.png"))
    narrow = [SCREENSHOTS / f"{name}-{scheme}-390.png" for name in NARROW for scheme in SCHEMES]
    if not wide:
        raise SystemExit(f"expected screenshots in {SCREENSHOTS}, got none; run `make browser`")
    for path in track([*wide, *narrow], "reducing", console=Console(stderr=True)):
        name = path.name.replace("-1280", "").replace("-390", "-narrow")
        picture = Image.open(path).convert("RGB")
        picture.quantize(COLOURS, dither=Image.Dither.NONE).save(SHOWN / name, optimize=True)


if __name__ == "__main__":
    main()
