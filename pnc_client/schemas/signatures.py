"""JSON types of trusted keys and signatures."""

from datetime import datetime

from pydantic import ConfigDict, Field

from pnc_client.schemas.shapes import NAME_PATTERN, RequestBody, ResponseBody

MAX_SIGNATURE = 256 * 1024
"""Maximum characters of a signature file; equal to `pnc_core.module.signing.MAX_BYTES`."""


class TrustedKeyCreate(RequestBody):
    """A public key to trust."""

    name: str = Field(pattern=NAME_PATTERN)
    """Name of the key's owner; unique in the workspace."""
    key: str
    """`ed25519:` and 64 hexadecimal digits."""


class TrustedKey(ResponseBody):
    """A public key whose signatures the workspace trusts."""

    name: str
    """Name of the key's owner."""
    key: str
    """`ed25519:` and 64 hexadecimal digits."""
    created_at: datetime
    """Time since the key is trusted."""


class SignaturePut(RequestBody):
    """A signature to store."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"signature": '{"key":"ed25519:...","signature":"..."}'}]}
    )

    signature: str = Field(max_length=MAX_SIGNATURE)
    """The unchanged text of the signature file."""


class Signature(ResponseBody):
    """The signature of a module."""

    module_id: str
    """Id of the module."""
    key: str
    """Public key of the signer."""
    text: str
    """The unchanged text of the signature file, with the statement about source, target, job and dataset."""
    created_at: datetime
    """Time of storing."""
