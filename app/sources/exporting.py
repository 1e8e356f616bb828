"""Write a version as a repository of the Hugging Face Hub: weights, config.json and model card.

`config.json` always holds the whole specification, so that an import gives the same version. Networks of timm also get
timm's own fields, so that `timm.create_model("hf-hub:OWNER/NAME", pretrained=True)` loads them.
"""

import json
import math
from pathlib import Path
from typing import Any

from app.imports.sources import SourceError
from app.sources.found import OWN
from pnc_client.schemas.models import Version
from pnc_core.config import NetworkSpec
from pnc_core.vision import timm_package

WEIGHTS, CONFIG, CARD = "model.safetensors", "config.json", "README.md"


def check_empty(folder: Path) -> None:
    """Check that a folder is new or empty.

    Raises:
        SourceError: it holds files, or is a file.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise SourceError(f"--to: expected a new or empty folder, got {folder}; choose another one")


def describe(version: Version, card: str, folder: Path) -> None:
    """Write `config.json` and the model card beside the weights.

    Args:
        version: The exported version.
        card: The model's card in Markdown; may begin with YAML.
        folder: Holds the weights.
    """
    config = config_of(version.spec)
    (folder / CONFIG).write_text(json.dumps(config, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (folder / CARD).write_text(_card(version, card), encoding="utf-8")


def config_of(spec: NetworkSpec) -> dict[str, Any]:
    """The content of `config.json`."""
    own = {OWN: {"spec": spec.to_dict()}}
    if not spec.architecture.startswith("timm/"):
        labels = {str(number): name for number, name in enumerate(spec.classes)}
        return {"num_classes": len(spec.classes), "id2label": labels, **own}
    name, timm = spec.architecture.removeprefix("timm/"), timm_package()
    known = timm.get_pretrained_cfg(name) if timm is not None else None
    published = known.to_dict(remove_source=True) if known is not None else {}
    described = {name: ", ".join(others) for name, others in spec.class_aliases.items()}
    arguments: dict[str, Any] = {}
    if spec.input_size[0] != 3:
        arguments["in_chans"] = spec.input_size[0]
    if published.get("fixed_input_size") and tuple(published["input_size"][1:]) != spec.input_size[1:]:
        arguments["img_size"] = list(spec.input_size[1:])
    kept = {key: published[key] for key in ("first_conv", "classifier", "fixed_input_size") if key in published}
    return {
        "architecture": name,
        "num_classes": len(spec.classes),
        "label_names": list(spec.classes),
        **({"label_descriptions": described} if described else {}),
        **({"model_args": arguments} if arguments else {}),
        "pretrained_cfg": {**kept, **_pixels(spec), "num_classes": len(spec.classes)},
        **own,
    }


def _pixels(spec: NetworkSpec) -> dict[str, Any]:
    """Preprocessing in timm's terms. timm resizes to floor(side / crop_pct)."""
    side, rule = max(spec.input_size[1:]), spec.preprocessing
    size = rule.resize_size or side
    share = side / size
    while math.floor(side / share) != size:
        share = math.nextafter(share, 0 if math.floor(side / share) < size else 1)
    return {
        "input_size": list(spec.input_size),
        "mean": list(spec.mean),
        "std": list(spec.std),
        "crop_pct": share,
        "crop_mode": "center" if rule.resize == "shorter-side" else "squash",
        "interpolation": rule.interpolation,
    }


def _card(version: Version, card: str) -> str:
    spec, origin = version.spec, version.origin
    is_timm = spec.architecture.startswith("timm/")
    head = {
        "license": version.licence.lower() or "unknown",
        "library_name": "timm" if is_timm else "pnc-zoo",
        "pipeline_tag": "image-classification",
    }
    lines = ["---", *(f"{name}: {json.dumps(value)}" for name, value in head.items()), "---", ""]
    text = card.partition("---\n")[2].partition("\n---\n")[2] if card.startswith("---\n") else card
    lines += [text.strip() or f"# {version.ref}", "", "| | |", "| --- | --- |"]
    rows = {
        "architecture": " ".join([spec.architecture, *(f"{k}={v}" for k, v in spec.options.items())]),
        "classes": f"{len(spec.classes):,}",
        "preprocessing": spec.preprocessing.describe(spec.input_size),
        "mean": ", ".join(f"{value:g}" for value in spec.mean),
        "standard deviation": ", ".join(f"{value:g}" for value in spec.std),
        "accuracy": "" if version.accuracy is None else f"{version.accuracy:.1%} of {version.accuracy_images} images",
        "SHA-256 of the weights": version.digest,
        "imported from": "" if origin is None else " ".join(filter(None, [origin.source, origin.revision])),
    }
    lines += [f"| {name} | {value} |" for name, value in rows.items() if value]
    return "\n".join([*lines, "", f"Exported from the version {version.ref} of a pnc-zoo service.", ""])


def upload(folder: Path, repository: str, *, private: bool) -> str:
    """Upload an exported folder to the Hugging Face Hub; returns its address.

    A token comes from `HF_TOKEN` or the login of huggingface_hub.

    Args:
        folder: The exported folder.
        repository: `owner/name`; created if it does not exist.
        private: Whether a new repository is private.

    Raises:
        SourceError: the Hub refuses the upload or does not answer.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled

    from app.sources.hub import first_line

    api = HfApi()
    try:
        api.create_repo(repository, private=private, exist_ok=True)
        done = api.upload_folder(repo_id=repository, folder_path=folder, commit_message="Export from pnc-zoo")
    except (HfHubHTTPError, LocalTokenNotFoundError, OfflineModeIsEnabled) as error:
        raise SourceError(f"hf://{repository}: expected an upload, got: {first_line(error)}; set HF_TOKEN") from None
    return str(done)
