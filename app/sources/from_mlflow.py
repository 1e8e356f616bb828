"""Versions of MLflow's registry: the one file of weights among the artifacts; a pickled module is refused.

Address and credentials are MLflow's own: `MLFLOW_TRACKING_URI`, `MLFLOW_TRACKING_TOKEN` and others.
"""

import os
from pathlib import Path

from app.imports.sources import Source, SourceError
from app.sources.found import Found, Rules, digest_of
from pnc_client.schemas.models import Origin

_KINDS = (".safetensors", ".pth", ".pt", ".bin", ".ckpt")
"""Suffixes of files of weights, the preferred first."""


def find(source: Source, rules: Rules, folder: Path) -> Found:
    """The file of weights of a registered version, without a specification.

    Raises:
        SourceError: MLflow is not installed, does not answer, or the artifacts hold not exactly one file of weights.
    """
    # The command and the worker show their own progress.
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    try:
        from mlflow import artifacts
        from mlflow.exceptions import MlflowException
    except ModuleNotFoundError:
        raise SourceError("source: expected mlflow to be installed, got none; pip install 'pnc-zoo[mlflow]'") from None
    place = f"models:/{source.name}/{source.revision}"
    try:
        found = Path(artifacts.download_artifacts(artifact_uri=place, dst_path=str(folder / "mlflow")))
    except (MlflowException, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise SourceError(f"{source.text}: expected a registered version, got: {reason}; check the name") from None
    path = weights_in(found, source.text)
    if path.stat().st_size > rules.max_bytes:
        raise SourceError(f"{source.text}: expected at most {rules.max_bytes} bytes, got {path.stat().st_size}")
    origin = Origin(source=source.text, revision=source.revision, file=path.name, digest=digest_of(path))
    return Found(path, origin)


def weights_in(folder: Path, name: str) -> Path:
    """The file of weights in a folder of artifacts.

    Raises:
        SourceError: there is none, or there are several of one kind.
    """
    for suffix in _KINDS:
        paths = sorted(folder.rglob(f"*{suffix}"))
        if len(paths) == 1:
            return paths[0]
        if paths:
            names = ", ".join(path.name for path in paths[:3])
            raise SourceError(f"{name}: expected one file of weights, got {names}; register one file")
    raise SourceError(
        f"{name}: expected a file of weights ({', '.join(_KINDS)}), got none; log model.state_dict() with "
        "mlflow.pytorch.log_state_dict"
    )
