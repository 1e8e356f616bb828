"""Trusted keys and signatures."""

from datetime import datetime

from pydantic import ConfigDict, Field

from pnc_client.schemas.shapes import NAME_PATTERN, RequestBody, ResponseBody

MAX_SIGNATURE = 256 * 1024
"""Characters of a signature's file; `pnc_core.module.signing.MAX_BYTES` is the same limit."""


class TrustedKeyCreate(RequestBody):
    """A public key to trust."""

    name: str = Field(pattern=NAME_PATTERN)
    """Whose it is; unique in the workspace."""
    key: str
    """`ed25519:` and 64 hexadecimal digits."""


class TrustedKey(ResponseBody):
    """A public key whose signatures the workspace believes."""

    name: str
    """Whose it is."""
    key: str
    """`ed25519:` and 64 hexadecimal digits."""
    created_at: datetime
    """Since when."""


class SignaturePut(RequestBody):
    """A signature to keep."""

    model_config = ConfigDict(
        json_schema_extra={"examples": [{"signature": '{"key":"ed25519:...","signature":"..."}'}]}
    )

    signature: str = Field(max_length=MAX_SIGNATURE)
    """The signature's file, word for word."""


class Signature(ResponseBody):
    """Somebody vouches for a module."""

    module_id: str
    """The module."""
    key: str
    """Public key of whoever does."""
    text: str
    """The signature's file, word for word: it holds the statement about source, target, job and images."""
    created_at: datetime
    """When it was kept."""
