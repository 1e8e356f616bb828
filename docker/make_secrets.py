"""Create the secrets of the containers once, and give each service a folder with only those that it uses.

make_secrets.py DIRECTORY

DIRECTORY/all holds the secrets themselves, DIRECTORY/<service> the files of that service. In docker-compose.yml each of
these folders is a volume, and only this program mounts them all.
"""

import json
import secrets
import sys
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

AUTHORITY = "authority of the store"
CERTIFICATES = ("ca.crt", "store.crt", "store.key")
COMPONENTS = ("master", "volume", "filer", "s3", "client")
"""Parts of SeaweedFS that talk to each other by gRPC."""
STORE_FOLDER = "/run/secrets/pnc"
"""Where the store's container has its files."""
NAMES = ("postgres", "redis", "internal-key", "secret-key", "store-key", "store-secret")


def main(directory: Path) -> None:
    """Create missing secrets, keep existing ones, and write the files of all services."""
    made = {name: _read_or_create(directory / "all" / name) for name in NAMES}
    for service, files in files_of(made).items():
        for name, text in files.items():
            _write(directory / service / name, text)
    if not all((directory / "store" / name).exists() for name in CERTIFICATES):
        for name, text in certificates().items():
            _write(directory / "store" / name, text)


def files_of(made: Mapping[str, str]) -> dict[str, dict[str, str]]:
    """Files by service and name.

    Args:
        made: The secrets by name.
    """
    database = {"database-url": f"postgresql+psycopg://pnc:{made['postgres']}@postgres:5432/pnc"}
    broker = {"broker-url": f"redis://:{made['redis']}@redis:6379/0"}
    internal = {"internal-key": made["internal-key"]}
    sealing = {"secret-keys": f"{made['secret-key']}=\n"}
    keys = {
        "aws": f"[default]\naws_access_key_id = {made['store-key']}\naws_secret_access_key = {made['store-secret']}\n"
    }
    config = f'requirepass {made["redis"]}\nsave ""\nappendonly no\nprotected-mode no\n'
    identity = {
        "name": "pnc",
        "credentials": [{"accessKey": made["store-key"], "secretKey": made["store-secret"]}],
        "actions": ["Admin", "Read", "Write", "List", "Tagging"],
    }
    return {
        "postgres": {"password": made["postgres"]},
        "redis": {"password": made["redis"], "redis.conf": config},
        "store": {
            "store.json": json.dumps({"identities": [identity]}),
            "security.toml": security_of(STORE_FOLDER),
            "filer.toml": '[leveldb2]\nenabled = true\ndir = "/data/filer"\n',
        },
        "migrate": {**database, **sealing, **keys},
        "api": {**database, **broker, **internal, **sealing, **keys},
        "serving": {**database, **internal, **keys},
        "worker": {**database, **broker, **sealing, **keys},
    }


def security_of(folder: str) -> str:
    """SeaweedFS's security.toml: each of its gRPC ports asks for a certificate of the authority in this folder.

    The port for S3's keys listens wherever S3 itself listens, and without certificates it changes keys for everybody.
    """
    parts = [f'[grpc.{name}]\ncert = "{folder}/store.crt"\nkey = "{folder}/store.key"' for name in COMPONENTS]
    return "\n".join([f'[grpc]\nca = "{folder}/ca.crt"', *parts, ""])


def certificates() -> dict[str, str]:
    """A new authority and one certificate of it, in PEM. The authority's key is not kept, so it signs nothing else."""
    authority, own = ec.generate_private_key(ec.SECP256R1()), ec.generate_private_key(ec.SECP256R1())
    signed = _certificate("store", own.public_key(), authority)
    key = own.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return {
        "ca.crt": _pem(_certificate(AUTHORITY, authority.public_key(), authority)),
        "store.crt": _pem(signed),
        "store.key": key.decode(),
    }


def _certificate(name: str, key: ec.EllipticCurvePublicKey, authority: ec.EllipticCurvePrivateKey) -> x509.Certificate:
    now = datetime.now(UTC)
    addresses = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH, ExtendedKeyUsageOID.SERVER_AUTH]
    builder = (
        x509.CertificateBuilder()
        .subject_name(_named(name))
        .issuer_name(_named(AUTHORITY))
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=3650))
        .add_extension(x509.BasicConstraints(ca=name == AUTHORITY, path_length=None), critical=True)
    )
    if name != AUTHORITY:
        builder = builder.add_extension(x509.SubjectAlternativeName(addresses), critical=False)
        builder = builder.add_extension(x509.ExtendedKeyUsage(uses), critical=False)
    return builder.sign(authority, hashes.SHA256())


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _read_or_create(path: Path) -> str:
    if not path.exists():
        _write(path, secrets.token_urlsafe(32))
    return path.read_text()


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    half = path.with_name(f"{path.name}.half")
    half.write_text(text)
    half.chmod(0o444)  # world-readable: the users of the containers differ, and no other service mounts the folder
    half.rename(path)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
