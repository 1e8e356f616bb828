"""Typed ids that sort by creation time: a prefix and a UUIDv7."""

from typing import Literal

import uuid_utils

Kind = Literal[
    "mdl",
    "ver",
    "up",
    "ds",
    "job",
    "mod",
    "dep",
    "evt",
    "trl",
    "stp",
    "rep",
    "req",
    "whk",
    "dlv",
    "key",
    "aud",
    "sig",
    "imp",
    "can",
    "cmp",
]


def new_id(kind: Kind) -> str:
    """A new id such as `job_01890a5d...`. Later ids sort later."""
    return f"{kind}_{uuid_utils.uuid7().hex}"
