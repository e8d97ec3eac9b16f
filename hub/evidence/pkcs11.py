"""A private key in a PKCS#11 token: a hardware security module, or SoftHSM.

The key is named by a URI (RFC 7512): the token by `token` or `serial`, the key in it by `object` or `id`, the
module that speaks to it by `module-path`, the file that holds the PIN by `pin-source`:

    pkcs11:token=truc;object=hub?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:/etc/lienthong/pin

P-256 keys sign with CKM_ECDSA over a SHA-256 made here, Ed25519 keys with CKM_EDDSA: what every token that has
such keys can do. Each process has one session with a token and makes one call at a time, since python-pkcs11
initialises a module without locks (PKCS#11 2.40, section 5.4: such an application must not call it from several
threads).

A call that fails may mean that the session, the token or the device has gone. Then the module is initialised
anew, the session opened again and the call repeated, once; after that signing fails at once for `PAUSE_SECONDS`. A
PIN that was refused is not tried again.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar
from urllib.parse import unquote, unquote_to_bytes

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from protocol.problems import LienthongError
from protocol.signature import KeyFormatError, PublicKey, SigningError, algorithm_of, checked, verify

PAUSE_SECONDS = 1.0
_P256 = bytes.fromhex("06082a8648ce3d030107")
_ED25519 = (bytes.fromhex("06032b6570"), b"\x13\x0cedwards25519")
"""How tokens name the curve: by its OID (RFC 8410), or by its name (PKCS#11 3.0)."""
_PROBE = b"lienthong: does this key sign?"
Result = TypeVar("Result")


class TokenError(LienthongError):
    """A key in a token cannot be used; the message says what to do."""


class PinError(TokenError):
    """A token refuses a PIN."""


@dataclass(frozen=True)
class KeyUri:
    """A PKCS#11 URI that names one private key."""

    module: str
    token: str | None
    serial: bytes | None
    object: str | None
    id: bytes | None
    pin_file: Path | None

    def __str__(self) -> str:
        """For messages: which token and which key."""
        token = self.token or (self.serial or b"").decode(errors="replace")
        return f"{self.object or (self.id or b'').hex()!r} in the token {token!r}"


def read_uri(text: str) -> KeyUri:
    """Take a PKCS#11 URI apart. Raises TokenError for one that does not name a key, or in a way not understood."""
    scheme, _, rest = text.partition(":")
    path, _, query = rest.partition("?")
    raw: dict[str, str] = {}
    for part in [*filter(None, path.split(";")), *filter(None, query.split("&"))]:
        name, equals, value = part.partition("=")
        if not equals or name in raw:
            raise TokenError(f"a PKCS#11 URI has attributes like object=hub, each once; not {part!r}")
        raw[name] = value
    if "pin-value" in raw:
        raise TokenError(
            "a PIN must not stand in a setting, which other programs can see; write it into a file and give "
            "pin-source=file:/path/of/it"
        )
    if raw.pop("type", "private") != "private":
        raise TokenError("the PKCS#11 URI must name a private key: leave `type` out")
    known = {"token", "serial", "object", "id", "module-path", "pin-source"}
    if unknown := raw.keys() - known:
        raise TokenError(
            f"PKCS#11 URI: {', '.join(sorted(unknown))} is not understood; there is {', '.join(sorted(known))}"
        )
    values = {name: unquote(value) for name, value in raw.items()}
    if scheme != "pkcs11" or not raw.keys() & {"token", "serial"} or not raw.keys() & {"object", "id"}:
        raise TokenError(
            "a key's PKCS#11 URI names the token (token= or serial=) and the key in it (object= or id=)"
        )
    if not values.get("module-path", "").startswith("/"):
        raise TokenError("the PKCS#11 URI must name the token's module: module-path=/path/of/its.so")
    pin = values.get("pin-source")
    if pin is not None:
        pin = pin.removeprefix("file:")
        pin = pin.removeprefix("//") if pin.startswith("///") else pin
        if not pin.startswith("/"):
            raise TokenError("PKCS#11 URI: pin-source is a file: pin-source=file:/path/of/it")
    return KeyUri(
        values["module-path"],
        values.get("token"),
        values["serial"].encode() if "serial" in values else None,
        values.get("object"),
        unquote_to_bytes(raw["id"]) if "id" in raw else None,
        Path(pin) if pin is not None else None,
    )


def _library() -> ModuleType:
    try:
        import pkcs11
    except ImportError:
        raise TokenError(
            "keys in a PKCS#11 token need the package python-pkcs11: pip install 'lienthong[hsm]'"
        ) from None
    return pkcs11


class _Module:
    """A PKCS#11 module in this process, and its sessions. Every call is made under `lock`."""

    def __init__(self, path: str) -> None:
        self.lock = threading.RLock()
        self.epoch = 0
        """Counts the times that everything was closed: handles of an earlier epoch are void."""
        self._path = path
        self._pkcs11 = _library()
        self._sessions: dict[tuple[object, ...], Any] = {}
        self._wrong: set[tuple[object, ...]] = set()
        """Tokens and PINs that they refused: a token locks after a few."""

    def session(self, uri: KeyUri) -> Any:
        """The session with the token of a key, logged in. Raises TokenError, PKCS11Error."""
        if not Path(self._path).is_file():  # the loader would look for it elsewhere too
            raise TokenError(f"module-path: there is no file {self._path}")
        place = uri.token, uri.serial, uri.pin_file
        session = self._sessions.get(place)
        if session is None:
            pkcs11 = self._pkcs11
            try:
                token = pkcs11.lib(self._path).get_token(token_label=uri.token, token_serial=uri.serial)
            except pkcs11.NoSuchToken:
                raise TokenError(f"the token of the key {uri} is not there") from None
            except pkcs11.MultipleTokensReturned:
                raise TokenError(f"there are several such tokens; name the serial of the one of {uri}") from None
            session = self._sessions[place] = self._open(token, uri)
        return session

    def _open(self, token: Any, uri: KeyUri) -> Any:
        pkcs11 = self._pkcs11
        if uri.pin_file is None:
            return token.open()
        try:
            pin = uri.pin_file.read_text(encoding="utf-8").rstrip("\r\n")
        except (OSError, UnicodeDecodeError) as error:
            raise TokenError(f"the PIN cannot be read from {uri.pin_file}: {error}") from None
        if token.flags & (pkcs11.TokenFlag.USER_PIN_FINAL_TRY | pkcs11.TokenFlag.USER_PIN_LOCKED):
            # A hub that is started again and again must not be what locks the token.
            raise TokenError(
                f"the token of the key {uri} has refused PINs: log in to it once by hand, then start again"
            )
        refused = PinError(f"the token of the key {uri} refuses the PIN of {uri.pin_file}")
        if (uri.token, uri.serial, pin) in self._wrong:
            raise refused
        try:
            return token.open(user_pin=pin)
        except pkcs11.UserAlreadyLoggedIn:
            return token.open()
        except (pkcs11.PinIncorrect, pkcs11.PinInvalid, pkcs11.PinLenRange, pkcs11.PinLocked):
            self._wrong.add((uri.token, uri.serial, pin))
            raise refused from None

    def reset(self) -> None:
        """Close everything, for all keys of this module; the next call begins anew."""
        self._sessions.clear()
        self.epoch += 1
        # Where that fails too, what comes next tries again and says what is wrong.
        with contextlib.suppress(self._pkcs11.PKCS11Error):
            self._pkcs11.lib(self._path).finalize()


_modules: dict[str, _Module] = {}
_modules_lock = threading.Lock()


def _module(path: str) -> _Module:
    with _modules_lock:
        if path not in _modules:
            _modules[path] = _Module(path)
        return _modules[path]


class TokenKey:
    """A `SigningKey` (protocol.signature) in a token."""

    slow = True

    def __init__(self, uri: KeyUri) -> None:
        """Opens the token and lets the key sign once. Raises TokenError."""
        self.uri = uri
        self._pkcs11 = _library()
        self._module = _module(uri.module)
        self._key: tuple[int, Any] = (-1, None)
        self._failed = float("-inf")
        """When signing last failed, even after everything was opened again (monotonic)."""
        try:
            self._public = self._repeated(self._find_public)
            self._algorithm = algorithm_of(self._public)
            self.sign(_PROBE)
        except SigningError as error:
            cause = error.__cause__
            raise cause if isinstance(cause, TokenError) else TokenError(str(error)) from None

    def public_key(self) -> PublicKey:
        return self._public

    def sign(self, data: bytes, /) -> bytes:
        """64 bytes: r and s of ES256, or an EdDSA signature. Raises SigningError.

        The signature is checked before it is given out (about 0.1 ms): a receipt that does not verify is worse
        than none.
        """
        signature = self._repeated(lambda: self._sign_once(data))
        if not verify(self._public, self._algorithm, signature, data):
            raise SigningError(f"the key {self.uri} signs what its public key does not verify")
        return signature

    def _sign_once(self, data: bytes) -> bytes:
        mechanism = self._pkcs11.Mechanism
        key = self._private()
        if self._algorithm == "EdDSA":
            return bytes(key.sign(data, mechanism=mechanism.EDDSA))
        return bytes(key.sign(hashlib.sha256(data).digest(), mechanism=mechanism.ECDSA))

    def _private(self) -> Any:
        session = self._module.session(self.uri)
        epoch, key = self._key
        if epoch != self._module.epoch:
            key = self._find(session, self._pkcs11.ObjectClass.PRIVATE_KEY)
            if key is None:
                raise TokenError(f"there is no private key {self.uri}, or it needs a PIN (pin-source)")
            self._key = self._module.epoch, key
        return key

    def _find(self, session: Any, class_: Any) -> Any:
        attribute = self._pkcs11.Attribute
        wanted: dict[Any, Any] = {attribute.CLASS: class_}
        if self.uri.object is not None:
            wanted[attribute.LABEL] = self.uri.object
        if self.uri.id is not None:
            wanted[attribute.ID] = self.uri.id
        found = list(session.get_objects(wanted))
        if len(found) > 1:
            raise TokenError(f"there are {len(found)} objects {self.uri}; name the one by `id` too")
        return found[0] if found else None

    def _find_public(self) -> PublicKey:
        """The public half, from the public key beside it or from its certificate."""
        session, attribute = self._module.session(self.uri), self._pkcs11.Attribute
        self._private()
        public = self._find(session, self._pkcs11.ObjectClass.PUBLIC_KEY)
        try:
            if public is not None:
                return _public_key(bytes(public[attribute.EC_PARAMS]), bytes(public[attribute.EC_POINT]))
            certificate = self._find(session, self._pkcs11.ObjectClass.CERTIFICATE)
            if certificate is not None:
                key = checked(x509.load_der_x509_certificate(bytes(certificate[attribute.VALUE])).public_key())
                if isinstance(key, EllipticCurvePublicKey | Ed25519PublicKey):
                    return key
                raise KeyFormatError("it is RSA")
        except (KeyFormatError, ValueError, self._pkcs11.AttributeTypeInvalid) as error:
            raise TokenError(f"the key {self.uri} must be P-256 or Ed25519: {error}") from None
        raise TokenError(
            f"the public key of {self.uri} is not in the token; store it, or its certificate, beside it"
        )

    def _repeated(self, call: Callable[[], Result]) -> Result:
        """What `call` gives; if it fails, once more with everything opened anew. Raises SigningError."""
        with self._module.lock:
            if time.monotonic() < self._failed + PAUSE_SECONDS:
                raise SigningError(f"the key {self.uri} could not be used a moment ago")
            try:
                try:
                    return call()
                except self._pkcs11.PKCS11Error:
                    self._module.reset()
                    return call()
            except (self._pkcs11.PKCS11Error, TokenError) as error:
                self._module.reset()  # many modules see a token come back only when they are initialised
                self._failed = time.monotonic()
                if isinstance(error, TokenError):
                    raise SigningError(str(error)) from error
                raise SigningError(f"the key {self.uri} cannot be used: {error!r}") from None


def _public_key(parameters: bytes, point: bytes) -> PublicKey:
    """The public key of a token's attributes CKA_EC_PARAMS and CKA_EC_POINT. Raises KeyFormatError, ValueError."""
    # The point is a DER OCTET STRING of 32 bytes, or of 65; some tokens leave the wrapping out.
    if len(point) in (34, 67):
        point = point[2:]
    if parameters in _ED25519:
        return Ed25519PublicKey.from_public_bytes(point)
    if parameters == _P256:
        return EllipticCurvePublicKey.from_encoded_point(SECP256R1(), point)
    raise KeyFormatError(f"its curve is {parameters.hex() or 'not named'}")


def close() -> None:
    """End this process's sessions. A key that is used afterwards opens another."""
    for module in list(_modules.values()):
        with module.lock:
            module.reset()


def open_key(uri: str) -> TokenKey:
    """The private key that a PKCS#11 URI names. Blocks while the token answers. Raises TokenError."""
    return TokenKey(read_uri(uri))
