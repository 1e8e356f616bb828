"""Sign and verify statements about bundles, with Ed25519 (RFC 8032). Torch-free.

A signature is a separate file beside the bundle: a bundle's digest is its name, and signing must not change it. One
bundle may have several signatures. The signed statement contains the SHA-256 of each of a module's files, so it covers
every byte of header, manifest and tensors.
"""

import hashlib
import json
from collections.abc import Collection
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from pnc_core.errors import BundleError, SignatureError
from pnc_core.module.manifest import build, canonical_json

FORMAT = "pnc-signature/1"
PREFIX = "ed25519:"
"""A public key is written as this prefix and 64 hexadecimal digits."""
MAX_BYTES = 256 * 1024
_DIGITS = 64


@dataclass(frozen=True, kw_only=True)
class Statement:
    """The signed content."""

    format: str
    module: str
    """Id of the module in its service; empty if the module was made without a service."""
    bundles: dict[str, str]
    """SHA-256 of each file, 64 hexadecimal digits, by payload."""
    classes: tuple[str, ...]
    source: str
    """Readable reference of the source."""
    source_fingerprint: str
    target: str
    target_fingerprint: str
    job: str
    dataset: str
    """Id of the dataset that the job used."""
    dataset_digest: str
    """SHA-256 of the dataset's file."""
    created_by: str
    """Name and version of the software."""
    signed_at: str
    """Time in ISO 8601, by the signer's clock."""


@dataclass(frozen=True)
class Signature:
    """A statement, the public key that signed it, and the signature."""

    statement: Statement
    key: str
    """Public key, `ed25519:...`."""
    signature: str
    """128 hexadecimal digits."""

    def to_text(self) -> str:
        """Canonical text of the file: equal signatures have equal texts."""
        return canonical_json({"key": self.key, "signature": self.signature, "statement": asdict(self.statement)})


def new_key() -> Ed25519PrivateKey:
    """A new private key."""
    return Ed25519PrivateKey.generate()


def write_key(key: Ed25519PrivateKey) -> bytes:
    """Encode a private key as PEM without a password; the caller must protect the file."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def read_key(pem: bytes) -> Ed25519PrivateKey:
    """Decode a private key from PEM.

    Raises:
        SignatureError: the text is not a private key, or not an Ed25519 key.
    """
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise SignatureError(f"expected a private key as PEM, got text that fails ({type(error).__name__})") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureError(f"expected an Ed25519 key, got {type(key).__name__}; make one with `pnc keys pair`")
    return key


def public_text(key: Ed25519PrivateKey) -> str:
    """The public key of a private key, as text."""
    return PREFIX + key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def read_public(text: str) -> Ed25519PublicKey:
    """Decode a public key.

    Raises:
        SignatureError: the text is not a public key.
    """
    digits = text.removeprefix(PREFIX)
    if not text.startswith(PREFIX) or len(digits) != _DIGITS or set(digits) - set("0123456789abcdef"):
        raise SignatureError(f"expected {PREFIX} and {_DIGITS} hexadecimal digits, got {text!r:.80}")
    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(digits))


def sign(statement: Statement, key: Ed25519PrivateKey) -> Signature:
    """Sign a statement."""
    return Signature(statement, public_text(key), key.sign(_message(statement)).hex())


def read_signature(text: str) -> Signature:
    """Read a signature file, and verify the signature with the public key in the file.

    It does not check whether the key is trusted; `verify_bundle_file` does.

    Raises:
        SignatureError: the file is damaged, is not in canonical form, or its signature is wrong.
    """
    if len(text) > MAX_BYTES:
        raise SignatureError(f"expected a signature of at most {MAX_BYTES} characters, got {len(text)}")
    try:
        value: Any = json.loads(text)
        signature = build(Signature, value, "signature")
        raw = bytes.fromhex(signature.signature)
        read_public(signature.key).verify(raw, _message(signature.statement))
        same = signature.to_text() == text.strip() and signature.signature == raw.hex()
    except (ValueError, RecursionError, BundleError, InvalidSignature) as error:
        raise SignatureError(f"expected a valid signature, got one that fails ({type(error).__name__})") from None
    if signature.statement.format != FORMAT or not same:
        raise SignatureError(f"expected the canonical form of {FORMAT}, got another; sign again")
    return signature


def verify_bundle_file(path: Path, text: str, trusted: Collection[str]) -> Signature:
    """Check that a trusted key has signed exactly this bundle.

    Args:
        path: Path of the bundle.
        text: Text of the signature file.
        trusted: Trusted public keys.

    Raises:
        SignatureError: the key is not trusted, or it has signed other bytes.
    """
    signature = read_signature(text)
    if signature.key not in trusted:
        raise SignatureError(f"expected a signature by one of {sorted(trusted)}, got one by {signature.key}")
    with path.open("rb") as file:
        got = hashlib.file_digest(file, "sha256").hexdigest()
    if got not in signature.statement.bundles.values():
        signed = ", ".join(f"{payload} {digest}" for payload, digest in signature.statement.bundles.items())
        raise SignatureError(
            f"{path.name}: expected the bytes that were signed ({signed}), got {got}; download it again"
        )
    return signature


def _message(statement: Statement) -> bytes:
    """Bytes to sign. The format as prefix keeps the signature from being valid for another kind of message."""
    return f"{FORMAT}\n{canonical_json(asdict(statement))}".encode()
