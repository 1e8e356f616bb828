"""Weights and descriptions of networks that users give to commands."""

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from app.cli.screen import Screen

if TYPE_CHECKING:
    from pnc_core.config import NetworkSpec
    from pnc_core.networks.files import Take


@contextmanager
def network_and_weights(
    screen: Screen, weights: Path, spec: Path, fields: dict[str, str | None], options: list[str],
    rule: dict[str, str | float | bool | None], take: str | None, key_map: Path | None, *, scaling_later: bool = False,
) -> "Iterator[tuple[NetworkSpec, Path]]":  # fmt: skip
    """Open weights for a push. If the file fits no network, the nearest networks are shown.

    Args:
        screen: Shows notes and the nearest networks.
        weights: The file of weights.
        spec: The description of the network as JSON; it may be missing.
        fields: Fields of the description as text, in place of the file's.
        options: Options of the architecture, each `NAME=VALUE`.
        rule: Fields of the preprocessing, in place of the file's.
        take: `plain` or `ema`; None: not given.
        key_map: A JSON file with new names of tensors by old ones.
        scaling_later: Mean and standard deviation may be missing, because a check finds them.

    Returns:
        The spec of the network, and its weights as safetensors.

    Raises:
        PncError: the file fits no network, or the description is incomplete.
    """
    if find_spec("torch") is None and (fields["architecture"] is not None or spec.is_file()):
        from app.local.specs import given_spec

        yield given_spec(spec, fields, options, preprocessing=rule), weights  # the service compares the tensors
        return
    from app.local.bringing import Unfit, Wanted, brought
    from app.local.identifying import shown

    wanted = Wanted(spec, fields, tuple(options), chosen_weights(take), key_map, rule, scaling_later)
    try:
        with brought(weights, wanted, screen.note) as pair:
            yield pair
    except Unfit as error:
        if not screen.as_json:
            screen.notes.print(shown(weights, error.identified))
        raise


def chosen_weights(text: str | None) -> "Take | None":
    """The value of the option `--weights`.

    Raises:
        BadParameter: the value is neither `plain` nor `ema`.
    """
    from pnc_core.networks.files import TAKES

    for take in TAKES:
        if text == take:
            return take
    if text is not None:
        raise typer.BadParameter(f"expected plain or ema, got {text!r}", param_hint="--weights")
    return None
