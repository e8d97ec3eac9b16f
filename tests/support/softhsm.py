"""A token of SoftHSM (Debian: softhsm2) in a folder of its own, and keys in it."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from hub.evidence import pkcs11

MODULE = next((path for path in Path("/usr/lib").glob("**/softhsm/libsofthsm2.so")), None)
UTIL = shutil.which("softhsm2-util")
PIN = "mật khẩu 5678"
CURVES = {
    "ES256": bytes.fromhex("06082a8648ce3d030107"),
    "EdDSA": bytes.fromhex("06032b6570"),
    "P-384": bytes.fromhex("06052b81040022"),
}

needs_softhsm = pytest.mark.skipif(
    MODULE is None or UTIL is None, reason="SoftHSM is not here: apt-get install softhsm2"
)


class SoftHsm:
    """A token called `truc`, whose PIN is in a file."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tokens = folder / "tokens"
        self.pin_file = folder / "pin"
        self.conf = folder / "softhsm2.conf"
        self.tokens.mkdir()
        self.pin_file.write_text(PIN + "\n", encoding="utf-8")
        self.conf.write_text(f"directories.tokendir = {self.tokens}\nobjectstore.backend = file\n")

    def make_token(self, label: str = "truc") -> None:
        assert UTIL is not None
        subprocess.run(
            [UTIL, "--init-token", "--free", "--label", label, "--so-pin", "12345678", "--pin", PIN],
            check=True,
            capture_output=True,
        )

    def make_key(self, label: str, alg: str = "ES256", *, id: bytes = b"\1", public: bool = True) -> None:
        """A key pair, made in the token as `pkcs11-tool --keypairgen` makes one."""
        from pkcs11 import Attribute, KeyType, Mechanism

        kind = KeyType.EC_EDWARDS if alg == "EdDSA" else KeyType.EC
        mechanism = Mechanism.EC_EDWARDS_KEY_PAIR_GEN if alg == "EdDSA" else Mechanism.EC_KEY_PAIR_GEN
        with self.session() as session:
            curve = session.create_domain_parameters(kind, {Attribute.EC_PARAMS: CURVES[alg]}, local=True)
            made, _ = curve.generate_keypair(mechanism=mechanism, store=True, label=label, id=id)
            if not public:
                made.destroy()

    def session(self) -> Any:
        """A session that may write; closing it is the caller's."""
        import pkcs11 as library

        pkcs11.close()  # who is logged in already may not log in
        return library.lib(str(MODULE)).get_token(token_label="truc").open(rw=True, user_pin=PIN)

    def uri(self, label: str, **attributes: str | bytes) -> str:
        given: dict[str, str | bytes] = {"token": "truc", "object": label} | attributes
        path = ";".join(f"{name}={quote(value)}" for name, value in given.items())
        return f"pkcs11:{path}?module-path={MODULE}&pin-source=file:{quote(str(self.pin_file))}"


@pytest.fixture
def softhsm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SoftHsm]:
    """A fresh token. The module reads its settings whenever it is initialised."""
    folder = tmp_path / "hsm"
    folder.mkdir()
    made = SoftHsm(folder)
    monkeypatch.setenv("SOFTHSM2_CONF", str(made.conf))
    made.make_token()
    forget()
    yield made
    forget()


def forget() -> None:
    """Let the next call begin with what is in the token then."""
    import pkcs11 as library

    pkcs11.close()
    library.lib(str(MODULE)).finalize()
