"""Signed statements about bundles: who vouches for which bytes, and where they came from.

A signature is a file beside the bundle, not a part of it: a bundle's digest is its name, and must not change when
somebody vouches for it, or a second one does. The signed statement has the SHA-256 of each of a module's files, so
that it covers every byte of header, manifest and tensors. Ed25519 (RFC 8032). Torch-free.
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
"""How a public key is written: this, and 64 hexadecimal digits."""
MAX_BYTES = 256 * 1024
_DIGITS = 64


@dataclass(frozen=True, kw_only=True)
class Statement:
    """What is signed."""

    format: str
    module: str
    """Id of the module in its service; empty: it was made without one."""
    bundles: dict[str, str]
    """SHA-256 of each file, 64 hexadecimal digits, by payload."""
    classes: tuple[str, ...]
    source: str
    """Reference of the source, for people."""
    source_fingerprint: str
    target: str
    target_fingerprint: str
    job: str
    dataset: str
    """Id of the images that it was cloned with."""
    dataset_digest: str
    """SHA-256 of their file."""
    created_by: str
    """Name and version of the software."""
    signed_at: str
    """ISO 8601, by the signer's clock."""


@dataclass(frozen=True)
class Signature:
    """A statement, and who signed it."""

    statement: Statement
    key: str
    """Public key, `ed25519:...`."""
    signature: str
    """128 hexadecimal digits."""

    def to_text(self) -> str:
        """The file's text: the same for equal contents."""
        return canonical_json({"key": self.key, "signature": self.signature, "statement": asdict(self.statement)})


def new_key() -> Ed25519PrivateKey:
    """A new private key."""
    return Ed25519PrivateKey.generate()


def write_key(key: Ed25519PrivateKey) -> bytes:
    """A private key as PEM, without a password: keep the file to yourself."""
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())


def read_key(pem: bytes) -> Ed25519PrivateKey:
    """A private key from PEM.

    Raises:
        SignatureError: it is none, or of another kind.
    """
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError) as error:
        raise SignatureError(f"expected a private key as PEM, got text that fails ({type(error).__name__})") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise SignatureError(f"expected an Ed25519 key, got {type(key).__name__}; make one with `pnc keys pair`")
    return key


def public_text(key: Ed25519PrivateKey) -> str:
    """The public half of a key, as it is written."""
    return PREFIX + key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()


def read_public(text: str) -> Ed25519PublicKey:
    """A public key.

    Raises:
        SignatureError: it is not written as one.
    """
    digits = text.removeprefix(PREFIX)
    if not text.startswith(PREFIX) or len(digits) != _DIGITS or set(digits) - set("0123456789abcdef"):
        raise SignatureError(f"expected {PREFIX} and {_DIGITS} hexadecimal digits, got {text!r:.80}")
    return Ed25519PublicKey.from_public_bytes(bytes.fromhex(digits))


def sign(statement: Statement, key: Ed25519PrivateKey) -> Signature:
    """Vouch for a statement."""
    return Signature(statement, public_text(key), key.sign(_message(statement)).hex())


def read_signature(text: str) -> Signature:
    """Read a signature's file and check it against the key that it names; whether that is trusted is another matter.

    Raises:
        SignatureError: the file is damaged, written otherwise than we write it, or not signed by that key.
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
        raise SignatureError(
            f"expected a signature that is whole, got one that fails ({type(error).__name__})"
        ) from None
    if signature.statement.format != FORMAT or not same:
        raise SignatureError(f"expected the canonical form of {FORMAT}, got another; sign again")
    return signature


def verify_bundle_file(path: Path, text: str, trusted: Collection[str]) -> Signature:
    """See that a bundle is what a trusted key has signed.

    Args:
        path: The bundle.
        text: The signature's file.
        trusted: Public keys.

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
    """What is signed can be taken for nothing else that the same key might sign."""
    return f"{FORMAT}\n{canonical_json(asdict(statement))}".encode()
