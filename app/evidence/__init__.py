"""`pnc evidence`: what a bundle is worth on your own images, as numbers and as pictures."""

import json

from rich.console import Console

from app.evidence.collecting import Request, collect
from app.evidence.trials import read_trials

__all__ = ["Request", "run"]


def run(request: Request, console: Console) -> None:
    """Collect the evidence, write it to `request.out`, and print a summary.

    Raises:
        PncError: the files do not belong together, are damaged, or images are missing.
        OSError: a file cannot be read or written.
        ValueError: the directory of images or the file of trials is not one.
    """
    from app.evidence.report import draw, plain, summary  # pnc clone reads images by this package, and draws nothing

    trials = read_trials(request.trials) if request.trials else []
    request.out.mkdir(parents=True, exist_ok=True)
    found = collect(request, trials, console)
    numbers = plain(found)
    text = json.dumps(numbers, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    (request.out / "evidence.json").write_text(text, encoding="utf-8")
    names = ["evidence.json", *(path.name for path in draw(numbers, request.out))]
    console.print(summary(numbers))
    console.print(f"written to {request.out}: {', '.join(names)}", highlight=False, markup=False, soft_wrap=True)
