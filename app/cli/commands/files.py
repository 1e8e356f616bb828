"""`pnc inspect`, `export` and `evidence`: commands on network and bundle files of this machine."""

from pathlib import Path
from typing import Annotated

import typer

from app.cli import pushing
from app.cli.screen import AsJson, Screen, check_out, failures


def inspect(
    architecture: Annotated[str, typer.Argument(help="Name, e.g. resnet20 or torchvision/resnet18.")],
    size: Annotated[int, typer.Option(help="Height and width of the input; 0: 224 for torchvision, else 32.")] = 0,
    classes: Annotated[int, typer.Option(help="Number of classes.", min=2)] = 10,
    as_json: AsJson = False,
) -> None:
    """Print the positions of an architecture and its channel groups that can be pruned."""
    screen = Screen(as_json)
    with failures(screen):
        from app.local.inspection import json_values, tables, traced_network

        traced = traced_network(architecture, size or (224 if "/" in architecture else 32), classes)
        screen.show(json_values(traced), lambda: tables(architecture, traced))


def export(
    bundle: Annotated[Path, typer.Argument(help="A full bundle.", exists=True, dir_okay=False)],
    target: Annotated[Path, typer.Option(help="Weights of the target, safetensors.", exists=True, dir_okay=False)],
    out: Annotated[Path, typer.Option(help="File to write: .onnx, or .pt2 for torch.export.", dir_okay=False)],
    pixels: Annotated[
        bool, typer.Option(help="Let the exported network take uint8 pixels and preprocess them itself.")
    ] = False,
) -> None:
    """Export a target with an attached module as one ONNX or torch.export file, and compare its outputs."""
    screen = Screen()
    with failures(screen):
        from pnc_core import attach, load_network, read_bundle, to_onnx, to_pt2
        from pnc_core.errors import ConfigError

        if out.suffix not in (".onnx", ".pt2"):
            raise ConfigError(f"--out: expected a file name ending in .onnx or .pt2, got {out.name!r}")
        check_out(out, bundle, target)
        read = read_bundle(bundle)
        spec = read.manifest.target
        composed = attach(load_network(spec, target), read)
        write = to_onnx if out.suffix == ".onnx" else to_pt2
        write(composed, spec, out, pixels=pixels)
        screen.out.print(f"{out}: {len(composed.classes)} classes: {', '.join(composed.classes)}")


def evidence(
    bundle: Annotated[Path, typer.Argument(help="A thin or full bundle.", exists=True, dir_okay=False)],
    target: Annotated[Path, typer.Option(help="Weights of the target, safetensors.", exists=True, dir_okay=False)],
    source: Annotated[Path, typer.Option(help="Weights of the source, safetensors.", exists=True, dir_okay=False)],
    data: Annotated[str, typer.Option(help="Images to evaluate on, a source as for `pnc datasets push`.")],
    out: Annotated[Path, typer.Option(help="Directory for evidence.json and the pictures.", file_okay=False)],
    trials: Annotated[
        Path | None,
        typer.Option(help="A job's trials as JSON; adds a plot of its positions.", exists=True, dir_okay=False),
    ] = None,
    split: pushing.Split = None,
    image_column: pushing.ImageColumn = None,
    label_column: pushing.LabelColumn = None,
    class_names: pushing.ClassNames = None,
    seeds: Annotated[int, typer.Option(help="Repetitions of the masking curve; 0: no masking curve.", min=0)] = 3,
    epochs: Annotated[
        int, typer.Option(help="Epochs of feature matching at each point of the masking curve.", min=0, max=1000)
    ] = 3,
) -> None:
    """Verify a bundle and measure its accuracy, with numbers and plots; needs images that the job did not use."""
    screen = Screen()
    with failures(screen):
        pushing.check_there(data)
        from app.evidence import Request, run

        request = Request(
            bundle=bundle,
            target=target,
            source=source,
            data=data,
            out=out,
            trials=trials,
            seeds=seeds,
            epochs=epochs,
            images=pushing.options(split, image_column, label_column, class_names),
        )
        run(request, screen.out)


COMMANDS = (inspect, export, evidence)
