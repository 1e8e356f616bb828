"""Trusted keys, and signatures of modules."""

from collections.abc import Iterator

from pnc_client.http import Http, path_of
from pnc_client.schemas.signatures import Signature, TrustedKey


class Signatures:
    """The resources `/v1/trusted-keys` and `/v1/modules/{module}/signature`."""

    def __init__(self, http: Http) -> None:
        self._http = http

    def trust(self, name: str, key: str) -> TrustedKey:
        """Believe what a key signs."""
        return self._http.post(TrustedKey, "/v1/trusted-keys", {"name": name, "key": key})

    def trusted(self) -> Iterator[TrustedKey]:
        """Keys that are believed, newest first."""
        return self._http.pages(TrustedKey, "/v1/trusted-keys")

    def distrust(self, name: str) -> None:
        """Believe a key no more."""
        self._http.delete(path_of("trusted-keys", name))

    def put(self, module_id: str, text: str) -> Signature:
        """Keep a signature of a module."""
        answer = self._http.request("PUT", path_of("modules", module_id, "signature"), json={"signature": text})
        return self._http.read(Signature, answer)

    def get(self, module_id: str) -> Signature:
        """The signature of a module."""
        return self._http.get(Signature, path_of("modules", module_id, "signature"))
