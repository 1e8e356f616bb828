"""A signature is invalid after a change of any byte of the bundle or of the signature file."""

import random
from pathlib import Path

import pytest

from pnc_core.errors import SignatureError
from pnc_core.module import signing
from pnc_core.module.bundle import Bundle
from pnc_core.module.signing import FORMAT, Statement


def statement(digest: str, **changes: str) -> Statement:
    given = {"format": FORMAT, "module": "mod_1", "source": "high@1", "source_fingerprint": "a", "target": "low@1"}
    given |= {"target_fingerprint": "b", "job": "job_1", "dataset": "ds_1", "dataset_digest": "c"}
    given |= {"created_by": "pnc-zoo 0.1.0", "signed_at": "2026-01-31T09:00:00+00:00", **changes}
    return Statement(bundles={"full": digest}, classes=("7",), **given)


@pytest.fixture
def signed(by_hand: dict[str, Bundle], tmp_path: Path) -> tuple[Path, str, str]:
    """A bundle, the text of its signature, and the public key."""
    path, key = tmp_path / "module.safetensors", signing.new_key()
    digest = by_hand["router"].write(path).removeprefix("sha256:")
    return path, signing.sign(statement(digest), key).to_text(), signing.public_text(key)


def test_a_signed_bundle_is_told_by_whom(signed: tuple[Path, str, str]) -> None:
    path, text, public = signed
    found = signing.verify_bundle_file(path, text, [public])
    assert (found.key, found.statement.module) == (public, "mod_1")


@pytest.mark.always
def test_every_flipped_byte_of_a_bundle_is_refused(signed: tuple[Path, str, str]) -> None:
    path, text, public = signed
    whole = path.read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    generator = random.Random(0)
    places = [*range(header), *(generator.randrange(header, len(whole)) for _ in range(1000))]
    for place in places:
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1 << generator.randrange(8)]) + whole[place + 1 :])
        with pytest.raises(SignatureError):
            signing.verify_bundle_file(path, text, [public])
    path.write_bytes(whole)
    signing.verify_bundle_file(path, text, [public])


def test_every_flipped_byte_of_a_signature_is_refused(signed: tuple[Path, str, str]) -> None:
    _, text, _ = signed
    generator = random.Random(0)
    for place in range(len(text)):
        wrong = text[:place] + chr(ord(text[place]) ^ 1 << generator.randrange(7)) + text[place + 1 :]
        with pytest.raises(SignatureError):
            signing.read_signature(wrong)


def test_another_writing_of_the_same_signature_is_refused(signed: tuple[Path, str, str]) -> None:
    _, text, _ = signed
    for wrong in (text.replace(":", ": ", 1), text.upper(), "{}", "[" * 10_000):
        with pytest.raises(SignatureError):
            signing.read_signature(wrong)


def test_a_signature_by_another_key_is_refused(signed: tuple[Path, str, str]) -> None:
    path, text, _ = signed
    other = signing.public_text(signing.new_key())
    for trusted in ([], [other]):
        with pytest.raises(SignatureError, match="signature by"):
            signing.verify_bundle_file(path, text, trusted)


def test_a_key_cannot_be_put_in_for_another(signed: tuple[Path, str, str]) -> None:
    path, text, public = signed
    mine = signing.new_key()
    forged = text.replace(public, signing.public_text(mine))
    with pytest.raises(SignatureError):
        signing.verify_bundle_file(path, forged, [signing.public_text(mine)])


def test_a_signature_of_something_else_with_the_same_key_is_none() -> None:
    key = signing.new_key()
    other = signing.sign(statement("0" * 64, format="another-format/1"), key)
    with pytest.raises(SignatureError):
        signing.read_signature(other.to_text())


@pytest.mark.parametrize("pem", [b"", b"x", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"])
def test_what_is_no_private_key_is_refused(pem: bytes) -> None:
    with pytest.raises(SignatureError):
        signing.read_key(pem)


def test_a_key_survives_its_file() -> None:
    key = signing.new_key()
    again = signing.read_key(signing.write_key(key))
    assert signing.public_text(again) == signing.public_text(key)
