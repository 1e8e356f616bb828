"""`pnc clone` and `pnc compose`: a cloning job and a composition on this machine, without a service."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Annotated, Literal

import typer

from app.cli import pushing
from app.cli.parameters import Classes, Epochs, Keep, Parameters, Preset, Seed, Settings, parameters
from app.cli.screen import AsJson, Screen, check_out, failures, record, size
from app.cli.verdicts import advised, described

Payload = Literal["thin", "full"]
Device = Literal["auto", "cpu", "cuda"]
Head = Literal["affine", "joint", "ridge"]
Spec = Annotated[
    Path | None,
    typer.Option(
        help="Spec of the network as JSON; default: the file beside the weights that ends in .json.", exists=True
    ),
]


def clone(
    target: Annotated[Path, typer.Argument(help="Weights of the network that gains classes.", exists=True)],
    source: Annotated[Path, typer.Argument(help="Weights of the network that has the classes.", exists=True)],
    data: pushing.What,
    classes: Classes,
    out: Annotated[Path, typer.Option(help="Bundle file to write.", dir_okay=False)] = Path("module.safetensors"),
    payload: Annotated[Payload, typer.Option(help="full, or thin: usable only with the source's weights.")] = "full",
    split: pushing.Split = None,
    image_column: pushing.ImageColumn = None,
    label_column: pushing.LabelColumn = None,
    class_names: pushing.ClassNames = None,
    target_spec: Spec = None,
    source_spec: Spec = None,
    preset: Preset = None,
    keep: Keep = None,
    epochs: Epochs = None,
    seed: Seed = None,
    device: Annotated[Device, typer.Option(help="auto: a GPU if torch finds one, otherwise the CPU.")] = "auto",
    settings: Settings = None,
    file: Parameters = None,
    mark: Annotated[
        Path | None, typer.Option(help="Key of `pnc keys mark`; proves later that you made the module.", exists=True)
    ] = None,
    advise: Annotated[
        bool, typer.Option("--advise", help="Make no module; forecast its accuracy and the job's time in seconds.")
    ] = False,
    keep_anyway: Annotated[
        bool, typer.Option("--keep-anyway", help="Write the module although an answer without a module is better.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Clone classes of a source into a module for a target, on this machine and without a service."""
    screen = Screen(as_json)
    with failures(screen):
        config = parameters(classes, file, settings, preset=preset, keep=keep, epochs=epochs, seed=seed)
        config = replace(config, keep_anyway=config.keep_anyway or keep_anyway)
        pushing.check_there(data)
        check_out(out, target, source, Path(data))
        from app.local.cloning import Material, advise_files, clone_files
        from app.local.marking import read_mark
        from app.local.specs import given_spec
        from pnc_core.analysis.watermark import PROVED, proof_in_bundle

        specs = [
            given_spec(s or w.with_suffix(".json"), {}, []) for w, s in ((target, target_spec), (source, source_spec))
        ]
        images = pushing.options(split, image_column, label_column, class_names)
        material = Material(target, specs[0], source, specs[1], data, images)
        if advise:
            advice = asdict(advise_files(material, config, screen.notes, device=device))
            screen.show(advice, lambda: record(advised(advice)))
            return
        key = read_mark(mark) if mark else None
        bundle = clone_files(material, config, screen.notes, quiet=as_json, mark=key, device=device)
        proof = proof_in_bundle(key, bundle) if key else None
        digest = bundle.payload(payload).write(out)
        manifest = bundle.manifest
        document = {
            "path": str(out),
            "bytes": out.stat().st_size,
            "digest": digest,
            "classes": manifest.classes,
            "position": str(manifest.position),
            "kept_fraction": manifest.kept_fraction,
            "validation": manifest.validation,
            "verdict": None if manifest.verdict is None else asdict(manifest.verdict),
            "mark": proof,
        }
        people = {
            "bundle": f"{out} ({payload}, {size(out.stat().st_size)})",
            "digest": digest,
            "classes": ", ".join(manifest.classes),
            "position": manifest.position,
            "kept": f"{manifest.kept_fraction:.0%} of the source's tail",
            "held out": ", ".join(f"{side} {share:.3f}" for side, share in manifest.validation.items()),
        }
        if manifest.verdict is not None:
            people |= described(asdict(manifest.verdict))
        if proof is not None:
            people["mark"] = f"{proof.agreeing} of {proof.channels} channels agree, p = {proof.p_value:.1e}"
            if not proof.proved:
                screen.note(f"the mark proves nothing (p is not below {PROVED:g}): the module has too few channels")
        screen.show(document, lambda: record(people))


def compose(
    target: Annotated[Path, typer.Argument(help="Weights of the network that has the modules.", exists=True)],
    modules: Annotated[list[Path], typer.Argument(help="Bundles of the modules.", exists=True, metavar="MODULE...")],
    data: Annotated[
        str,
        typer.Option(
            "--dataset",
            help="Labelled images of the classes of the target and of all modules, as for `pnc clone`; with --extend "
            "of the new modules' classes only.",
        ),
    ],
    out: Annotated[Path, typer.Option(help="Composition file to write.", dir_okay=False)] = Path(
        "composition.safetensors"
    ),
    head: Annotated[
        Head, typer.Option(help="affine: scales and offsets; joint or ridge: also a correction of all logits.")
    ] = "affine",
    extend: Annotated[
        Path | None, typer.Option(help="Composition of some of the modules, to extend by the others.", exists=True)
    ] = None,
    source: Annotated[
        list[Path] | None,
        typer.Option(help="Weights of a source; repeat it. Thin bundles need theirs.", exists=True),
    ] = None,
    most_features: Annotated[
        int | None, typer.Option(help="Largest number of features of the sums for extensions.", min=1)
    ] = None,
    split: pushing.Split = None,
    image_column: pushing.ImageColumn = None,
    label_column: pushing.LabelColumn = None,
    class_names: pushing.ClassNames = None,
    target_spec: Spec = None,
    seed: Annotated[int, typer.Option(help="Seed of the folds.", min=0)] = 0,
    device: Annotated[Device, typer.Option(help="auto: a GPU if torch finds one, otherwise the CPU.")] = "auto",
    keep_anyway: Annotated[
        bool, typer.Option("--keep-anyway", help="Write it although the modules without it are more accurate.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Fit the numbers that several modules need together on one target, on this machine and without a service."""
    screen = Screen(as_json)
    with failures(screen):
        pushing.check_there(data)
        check_out(out, target, *modules, Path(data))
        from app.local.composing import Choices, Parts, compose_files
        from app.local.specs import given_spec
        from pnc_core.method.composing.ridge import MOST_FEATURES

        spec = given_spec(target_spec or target.with_suffix(".json"), {}, [])
        images = pushing.options(split, image_column, label_column, class_names)
        parts = Parts(target, spec, modules, source or [], data, images)
        choices = Choices(head, most_features or MOST_FEATURES, keep_anyway, seed)
        made = compose_files(parts, choices, screen.notes, earlier=extend, quiet=as_json, device=device)
        digest = made.write(out)
        manifest = made.manifest
        document = {
            "path": str(out),
            "bytes": out.stat().st_size,
            "digest": digest,
            "classes": manifest.classes,
            "modules": made.digests,
            "head": manifest.head,
            "origin": manifest.origin,
            "balance": {module: made.balance_of(module) for module in made.digests},
            "sums": None if manifest.ridge is None else asdict(manifest.ridge),
            "verdict": None if manifest.verdict is None else asdict(manifest.verdict),
        }
        people: dict[str, object] = {
            "composition": f"{out} ({size(out.stat().st_size)})",
            "digest": digest,
            "classes": ", ".join(manifest.classes),
            "head": manifest.head,
        }
        for module in manifest.modules:
            scale, offset = made.balance_of(module.digest)
            people[", ".join(module.classes)] = f"scale {scale:.3f}, offset {offset:+.3f}"
        people["can be extended"] = manifest.without_ridge or "yes"
        if manifest.verdict is not None:
            people |= described(asdict(manifest.verdict))
        screen.show(document, lambda: record(people))


COMMANDS = (clone, compose)
