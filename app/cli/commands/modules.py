"""`pnc modules`: modules and their bundles."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from app.cli import completion, purging
from app.cli.screen import DEFAULT_URL, AsJson, Exit, Screen, Url, connected, failures, local_time, record, size, table
from app.cli.verdicts import described

if TYPE_CHECKING:
    from rich.console import RenderableType

    from pnc_client import Module

app = typer.Typer(name="modules", help="Cloned modules and their bundles.", no_args_is_help=True)
Id = Annotated[str, typer.Argument(help="Id of a module.", autocompletion=completion.modules)]


@app.command("list")
def list_modules(
    fingerprint: Annotated[str | None, typer.Option(help="Only modules for the target with this fingerprint.")] = None,
    archived: Annotated[bool, typer.Option("--archived", help="Include archived modules.")] = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """List modules, newest first."""
    with connected(url, as_json) as (client, screen):
        found = list(client.modules.list(target_fingerprint=fingerprint, archived=archived))
        rows = ([m.id, m.source, m.target, ", ".join(m.classes), _sizes(m), local_time(m.created_at)] for m in found)
        empty = "no modules yet; clone classes with `pnc jobs create`"
        columns = ["module", "from", "into", "classes", "bundles", "published"]
        screen.show(found, lambda: table(columns, rows, empty))


@app.command()
def show(module: Id, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Show a module with the main facts of its manifest."""
    with connected(url, as_json) as (client, screen):
        found = client.modules.get(module)
        manifest = found.manifest()
        document = {**found.model_dump(mode="json"), "manifest": manifest}
        screen.show(document, lambda: _module(found, manifest))


@app.command()
def pull(
    module: Id,
    payload: Annotated[
        Literal["thin", "full"], typer.Option(help="A thin bundle is usable only with the source's weights.")
    ] = "full",
    out: Annotated[Path | None, typer.Option(help="File to write; default: the module's id with the payload.")] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Download a module's bundle and check its digest."""
    with connected(url, as_json) as (client, screen):
        found = client.modules.get(module)
        with screen.bar(f"downloading {module}") as progress:
            path = found.download(out, payload, progress=progress)
        digest = next(b.digest for b in found.bundles if b.payload == payload)
        document = {"path": str(path), "bytes": path.stat().st_size, "digest": digest}
        screen.show(document, lambda: f"{path}: {size(path.stat().st_size)}, SHA-256 {digest}")


@app.command()
def verify(
    bundle: Annotated[Path, typer.Argument(help="A bundle file.", exists=True, dir_okay=False)],
    source: Annotated[
        Path | None,
        typer.Option(help="Weights of the source; checks that the module's copies are equal to them.", exists=True),
    ] = None,
    target: Annotated[
        Path | None, typer.Option(help="Weights of the target; checks that the module fits them.", exists=True)
    ] = None,
    signature: Annotated[
        Path | None, typer.Option(help="Signature file of the bundle; checks the signature.", exists=True)
    ] = None,
    trust: Annotated[list[str] | None, typer.Option(help="With --signature: trusted public key; repeatable.")] = None,
    as_json: AsJson = False,
) -> None:
    """Check a bundle: undamaged, signed, cut from this source, made for this target; needs no service."""
    screen = Screen(as_json)
    if signature is not None and not trust:
        screen.fail(
            Exit.USAGE, "--trust: expected a public key together with --signature, got none; see `pnc keys trusted`"
        )
    with failures(screen):
        from app.local.verifying import verify_file
        from pnc_core.module.signing import verify_bundle_file

        # The signature is checked first, so that nothing else of an untrusted file is read.
        signed = verify_bundle_file(bundle, signature.read_text(encoding="utf-8"), trust or ()) if signature else None
        proved = {**verify_file(bundle, source, target), "signed_by": signed and signed.key}
        screen.show(proved, lambda: record({name.replace("_", " "): value for name, value in proved.items()}))


@app.command()
def origin(
    suspect: Annotated[Path, typer.Argument(help="Weights or a full bundle to examine.", exists=True, dir_okay=False)],
    source: Annotated[Path, typer.Option(help="Weights of the suspected source.", exists=True)],
    any_layer: Annotated[
        bool, typer.Option(help="Compare each layer with every layer, whatever their names; slow.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Test whether a file holds filters of a source, even with reordered channels; needs no service."""
    screen = Screen(as_json)
    with failures(screen):
        from app.local.origin import as_table, json_values, origin_of_file

        found = origin_of_file(suspect, source, any_layer=any_layer)
        screen.show(json_values(found), lambda: as_table(found))


@app.command()
def prove(
    suspect: Annotated[Path, typer.Argument(help="Weights or a full bundle to examine.", exists=True, dir_okay=False)],
    source: Annotated[Path, typer.Option(help="Weights of the source of your module.", exists=True)],
    mark: Annotated[Path, typer.Option(help="Your key file of `pnc keys mark`.", exists=True, dir_okay=False)],
    as_json: AsJson = False,
) -> None:
    """Test whether the channels that a file copies from a source were chosen with your key; needs no service."""
    screen = Screen(as_json)
    with failures(screen):
        from app.local.marking import proof_of_file, read_mark

        key = read_mark(mark)
        found = proof_of_file(suspect, source, key)
        document = {
            "proved": found.proved,
            "p_value": found.p_value,
            "agreeing": found.agreeing,
            "channels": found.channels,
            "commitment": key.commitment,
        }
        screen.show(document, lambda: record({name.replace("_", " "): value for name, value in document.items()}))


@app.command()
def sign(
    module: Id,
    key: Annotated[Path, typer.Option(help="Private key file of `pnc keys pair`.", exists=True, dir_okay=False)],
    out: Annotated[Path | None, typer.Option(help="Also write the signature to this file.")] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Download a module, check its digests, and sign it; the private key stays on this machine."""
    with connected(url, as_json) as (client, screen):
        from app.local.signing import sign_module

        made = sign_module(client, module, key)
        client.signatures.put(module, made.to_text())
        if out is not None:
            out.write_text(made.to_text(), encoding="utf-8")
        screen.show({"module": module, "key": made.key}, lambda: f"signed {module} with {made.key}")


@app.command()
def signature(
    module: Id,
    out: Annotated[Path | None, typer.Option(help="Write the signature to this file.")] = None,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Show the signature of a module."""
    with connected(url, as_json) as (client, screen):
        found = client.signatures.get(module)
        if out is not None:
            out.write_text(found.text, encoding="utf-8")
        screen.show(found, lambda: record({"module": module, "key": found.key, "statement": found.text}))


@app.command()
def delete(module: Id, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Archive a module: lists hide it and deployments cannot attach it; attached copies stay attached."""
    with connected(url, as_json) as (client, screen):
        client.modules.archive(module)
        purging.archived(screen, "modules", module)


@app.command()
def restore(module: Id, url: Url = DEFAULT_URL, as_json: AsJson = False) -> None:
    """Restore an archived module."""
    with connected(url, as_json) as (client, screen):
        client.modules.change(module, archived=False)
        purging.restored(screen, module)


@app.command()
def purge(
    module: Id,
    dry_run: purging.DryRun = False,
    yes: purging.Yes = False,
    url: Url = DEFAULT_URL,
    as_json: AsJson = False,
) -> None:
    """Delete an archived module and its bundles permanently; needs the scope admin."""
    with connected(url, as_json) as (client, screen):
        purging.run(screen, lambda planned: client.modules.purge(module, dry_run=planned), dry_run=dry_run, yes=yes)


def _module(module: "Module", manifest: dict[str, Any]) -> "RenderableType":
    position, sizes = manifest.get("position", {}), manifest.get("sizes", {})
    held_out = manifest.get("validation", {})
    return record(
        {
            "module": module.id,
            "from": module.source,
            "into": module.target,
            "classes": ", ".join(module.classes),
            "position": " -> ".join(position[side] for side in ("target", "source") if side in position),
            "kept": f"{manifest['kept_fraction']:.0%} of the source's tail" if "kept_fraction" in manifest else None,
            "numbers": ", ".join(f"{part} {count:,}" for part, count in sizes.items()),
            "held out": ", ".join(f"{side} {share:.3f}" for side, share in held_out.items()),
            **described(manifest.get("verdict")),
            "bundles": _sizes(module),
            "fits": module.target_fingerprint,
            "job": module.job,
            "published": local_time(module.created_at),
            "archived": local_time(module.archived_at) if module.archived_at else "no",
        }
    )


def _sizes(module: "Module") -> str:
    return ", ".join(f"{bundle.payload} {size(bundle.bytes)}" for bundle in module.bundles)
