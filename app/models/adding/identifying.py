"""Find the architecture of a checkpoint's outline in a child process, because building networks needs torch."""

import json
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from app.errors import Invalid
from app.process.child_pool import bare_environment
from app.process.children import python

SECONDS = 120
"""Time limit. Importing torch takes seconds, and building the candidates for an unknown network as well."""
_BY = {"names": "all names are equal", "order": "equal shapes in equal order", "shapes": "equal shapes"}


@dataclass(frozen=True)
class Fit:
    """An architecture that takes the file's tensors."""

    architecture: str
    options: dict[str, Any]
    by: str
    """`names`, `order` or `shapes`."""
    published: str | None
    """The repository whose names the file has."""
    fits_as_well: tuple[str, ...]
    """Options with which the tensors fit, too, while the logits are others; each as `option=value`."""
    renamed: int
    """Tensors that get another name."""
    known: dict[str, Any]
    """Fields of the specification that the weights tell."""
    usual: dict[str, Any]
    """Fields as the library publishes them with its own weights of this architecture."""
    plan: list[list[Any]]
    """Place in the file and new name of each tensor."""

    @property
    def title(self) -> str:
        """Architecture, options and repository."""
        options = [f"{name}={_text(value)}" for name, value in self.options.items()]
        return " ".join([self.architecture, *options]) + (f" ({self.published})" if self.published else "")

    @property
    def advice(self) -> str:
        """Why it is proposed, where the other fields come from, and what the tensors cannot tell."""
        renamed = f"; {self.renamed} tensors get the names of this service" if self.renamed else ""
        parts = [f"Found by the tensors: {_BY[self.by]}{renamed}."]
        if "mean" in self.known:
            parts.append(
                f"Classes and preprocessing are those of {self.published}; change them if you trained otherwise."
            )
        elif self.usual:
            library = self.architecture.partition("/")[0]
            parts.append(f"Preprocessing is the usual one of {library}; change it if you trained otherwise.")
        if self.fits_as_well:
            others = ", ".join(self.fits_as_well)
            parts.append(f"The tensors fit with {others} as well: a check on images shows which is right.")
        return " ".join(parts)


@dataclass(frozen=True)
class Proposal:
    """Architectures for a file."""

    notes: tuple[str, ...]
    tensors: int
    classes: int
    """Outputs of the last layer."""
    channels: int
    chosen: Fit | None
    """The only fit of the surest kind."""
    fits: tuple[Fit, ...]
    nearest: tuple[dict[str, Any], ...]
    """Without fits: the most alike architectures, with the differences."""

    @property
    def difference(self) -> str:
        """Why no architecture fits, in a sentence."""
        if not self.nearest:
            return "no known architecture has these tensors"
        near = self.nearest[0]
        parts = [
            f"{near[f'{name}_count']} {text} (such as {near[name][0]})"
            for name, text in (("missing", "missing"), ("unexpected", "too many"), ("other", "of another shape"))
            if near[name]
        ]
        return f"the file does not have the tensors of {near['architecture']}: {'; '.join(parts)}"


def identified(outline: Mapping[str, Any], wanted: Mapping[str, Any] | None = None) -> Proposal:
    """Compare an outline with the known architectures, or with one.

    Args:
        outline: What the browser read of a file; see `pnc_core.networks.outline`.
        wanted: `architecture`, `options` and `input_size` of the only network to compare with.

    Raises:
        Invalid: the outline has no network's tensors, or the wanted network cannot be built.
    """
    try:
        done = subprocess.run(  # noqa: S603 - our own module, no shell
            python("workers.networks.identification"),
            input=json.dumps({"outline": outline, "wanted": wanted}).encode(),
            capture_output=True,
            timeout=SECONDS,
            env=bare_environment(),
            check=True,
            start_new_session=True,  # a Ctrl-C that ends the service is no fault of the file
        )
    except (subprocess.SubprocessError, OSError) as error:
        detail = f"expected the architecture to be found within {SECONDS} s, got {type(error).__name__}; try again, or"
        raise Invalid.at("/weights", "not_identified", f"{detail} use `pnc models push`") from None
    told = json.loads(done.stdout)
    if "error" in told:
        raise Invalid.at("/weights", told["error"]["code"], told["error"]["detail"])
    fits = tuple(Fit(**{**fit, "fits_as_well": tuple(fit["fits_as_well"])}) for fit in told["fits"])
    chosen = None if told["chosen"] is None else fits[told["chosen"]]
    return Proposal(
        tuple(told["notes"]), told["tensors"], told["classes"], told["channels"], chosen, fits, tuple(told["nearest"])
    )


def _text(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value)
