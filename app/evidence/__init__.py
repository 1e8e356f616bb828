"""`pnc evidence`: verify a bundle and measure its accuracy on the user's images, as numbers and plots."""

import json

from rich.console import Console

from app.evidence.collecting import Request, collect
from app.evidence.trials import read_trials

__all__ = ["Request", "run"]


def run(request: Request, console: Console) -> None:
    """Collect the evidence, write it to `request.out`, and print a summary.

    Raises:
        PncError: a file is damaged or belongs to another module, or images are missing.
        OSError: a file cannot be read or written.
        ValueError: the directory holds no images, or the file of trials holds no trials.
    """
    from app.evidence.report import draw, plain, summary  # imports matplotlib, which `pnc clone` does not need

    trials = read_trials(request.trials) if request.trials else []
    request.out.mkdir(parents=True, exist_ok=True)
    found = collect(request, trials, console)
    numbers = plain(found)
    text = json.dumps(numbers, indent=2, allow_nan=False, ensure_ascii=False) + "\n"
    (request.out / "evidence.json").write_text(text, encoding="utf-8")
    names = ["evidence.json", *(path.name for path in draw(numbers, request.out))]
    console.print(summary(numbers))
    console.print(f"written to {request.out}: {', '.join(names)}", highlight=False, markup=False, soft_wrap=True)
