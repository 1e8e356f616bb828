"""Sign modules on the user's machine; a private key is never sent to a service."""

import os
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from pnc_core.module import signing
from pnc_core.module.signing import FORMAT, Statement

if TYPE_CHECKING:
    from pnc_client import Client


def make_pair(path: Path) -> str:
    """Create a key pair, write the private key to a file that only its owner can read, and return the public key.

    Raises:
        FileExistsError: the file exists; it is not overwritten.
    """
    key = signing.new_key()
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(signing.write_key(key))
    return signing.public_text(key)


def sign_module(client: "Client", module_id: str, key_file: Path) -> signing.Signature:
    """Download a module's bundles, check their digests, and sign a statement about the module.

    Args:
        client: A client of the service.
        module_id: Id of the module.
        key_file: File of the private key.

    Raises:
        SignatureError: the file does not hold a private key.
        ClientError: the service refuses the request, or a bundle is damaged.
    """
    key = signing.read_key(key_file.read_bytes())
    module, manifest = client.modules.get(module_id), client.modules.manifest(module_id)
    job = client.jobs.get(module.job)
    dataset = client.datasets.get(job.dataset)
    with TemporaryDirectory() as folder:
        for bundle in module.bundles:
            client.modules.download(module_id, bundle.payload, Path(folder) / bundle.payload)
    statement = Statement(
        format=FORMAT,
        module=module.id,
        bundles={bundle.payload: bundle.digest for bundle in module.bundles},
        classes=tuple(module.classes),
        source=module.source,
        source_fingerprint=_text(manifest, "source_fingerprint"),
        target=module.target,
        target_fingerprint=module.target_fingerprint,
        job=module.job,
        dataset=dataset.id,
        dataset_digest=dataset.digest,
        created_by=_text(manifest, "created_by"),
        signed_at=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    return signing.sign(statement, key)


def _text(manifest: dict[str, Any], field: str) -> str:
    return str(manifest.get(field, ""))
