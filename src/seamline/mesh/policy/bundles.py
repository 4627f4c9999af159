"""Policy in signed bundles: one file with all Cedar files, a sequence number and an Ed25519 signature.

A bundle is good if the key in ``[policy] bundle_key`` has signed it for this application. One whose number is not
above every number that was ever applied here is refused, so that nobody can bring an old, laxer policy back by
sending it again; going back is a decision of its own, made here (:meth:`BundleStore.rollback`).
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key

from seamline.mesh.errors import BundleError, BundleReplayError, BundleSignatureError

if TYPE_CHECKING:
    from seamline.kernel.settings import Settings

FORMAT = "seamline-policy-1"
BYTES_MAX = 16 << 20
_STATE = "state.json"


@dataclass(frozen=True, slots=True)
class Bundle:
    """The files of one policy. ``files`` has Cedar files and ``tests.toml``, name to text."""

    app: str
    sequence: int
    files: Mapping[str, str]

    @property
    def cedar(self) -> dict[str, str]:
        """The Cedar files, named as in a folder."""
        return {f"bundle {self.sequence}/{n}": text for n, text in sorted(self.files.items()) if n.endswith(".cedar")}

    def signed(self, key: Ed25519PrivateKey) -> bytes:
        """The bundle as a file."""
        content = self._content()
        signature = base64.b64encode(key.sign(content)).decode()
        return json.dumps({"content": base64.b64encode(content).decode(), "signature": signature}, indent=1).encode()

    def _content(self) -> bytes:
        # The signature covers these very bytes, which are kept: nothing depends on how JSON is written.
        fields = {"format": FORMAT, "app": self.app, "sequence": self.sequence, "files": dict(self.files)}
        return json.dumps(fields, ensure_ascii=False, sort_keys=True).encode()


def opened(data: bytes, key: Ed25519PublicKey, app: str, place: str = "") -> Bundle:
    """The bundle in a file, once its signature is checked. Raises BundleError or BundleSignatureError."""
    try:
        if len(data) > BYTES_MAX:
            raise _unreadable(f"it is longer than {BYTES_MAX} bytes", place)
        envelope = json.loads(data)
        content = base64.b64decode(envelope["content"], validate=True)
        signature = base64.b64decode(envelope["signature"], validate=True)
    except (ValueError, TypeError, KeyError, RecursionError, binascii.Error) as error:
        raise _unreadable(str(error) or type(error).__name__, place) from None
    try:
        key.verify(signature, content)
    except InvalidSignature:
        raise BundleSignatureError(
            "the bundle is not signed by the key in [policy] bundle_key",
            "Ask whoever sent it; nothing of it was used.",
            place=place or None,
        ) from None
    fields = cast("dict[str, Any]", json.loads(content))
    if fields.get("format") != FORMAT or fields.get("app") != app:
        raise BundleError(
            f"the bundle is for {fields.get('app')!r} in the form {fields.get('format')!r}",
            f"This is {app!r}, and the form is {FORMAT!r}: make one with `seamline policy bundle` here.",
            place=place or None,
        )
    return Bundle(app, int(fields["sequence"]), cast("dict[str, str]", fields["files"]))


def _unreadable(why: str, place: str) -> BundleError:
    return BundleError(f"this is no policy bundle: {why}", "Make one: `seamline policy bundle`.", place=place or None)


class BundleStore:
    """The bundles that were applied in one place: the one in force, those before it, and the highest number."""

    def __init__(self, folder: Path, key: Ed25519PublicKey, app: str) -> None:
        self._folder = folder
        self._key = key
        self._app = app

    def current(self) -> Bundle:
        """The bundle in force, with its signature checked again. Raises BundleError."""
        applied = self.applied()
        if not applied:
            raise BundleError(
                "[policy] bundle_key says that policy comes in bundles, and none was applied",
                "Run `seamline policy apply FILE`.",
            )
        return self._read(applied[-1])

    def applied(self) -> list[int]:
        """The numbers of the bundles that one can go back to, the one in force last."""
        return list(self._state()["applied"])

    def open(self, data: bytes, place: str = "") -> Bundle:
        """The bundle in a file, if it may be applied. Raises BundleError."""
        bundle = opened(data, self._key, self._app, place)
        highest: int = self._state()["highest"]
        if bundle.sequence <= highest:
            raise BundleReplayError(
                f"the bundle has the number {bundle.sequence}, and {highest} was applied before",
                "Sign what shall be in force with a higher number; to go back, `seamline policy rollback`.",
                place=place or None,
            )
        return bundle

    def apply(self, data: bytes) -> Bundle:
        """Put a bundle in force for who reads next. Raises BundleError."""
        bundle = self.open(data)
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._write(f"{bundle.sequence}.json", data)
        self._save([*self.applied(), bundle.sequence], bundle.sequence)
        return bundle

    def rollback(self) -> Bundle:
        """Put the bundle before this one in force again. Raises BundleError when there is none, or it is not good."""
        state = self._state()
        applied: list[int] = state["applied"]
        if len(applied) < 2:
            raise BundleError("there is no bundle to go back to", "Apply one with a higher number.")
        bundle = self._read(applied[-2])
        self._save(applied[:-1], state["highest"])
        return bundle

    def _read(self, sequence: int) -> Bundle:
        path = self._folder / f"{sequence}.json"
        try:
            data = path.read_bytes()
        except OSError as error:
            raise BundleError(f"bundle {sequence} cannot be read: {error}", "Apply a newer one.") from None
        return opened(data, self._key, self._app, str(path))

    def _state(self) -> dict[str, Any]:
        path = self._folder / _STATE
        try:
            return cast("dict[str, Any]", json.loads(path.read_bytes()))
        except FileNotFoundError:
            return {"applied": [], "highest": 0}
        except (OSError, ValueError) as error:
            raise BundleError(
                f"what was applied cannot be read: {error}", "Restore the file.", place=str(path)
            ) from None

    def _save(self, applied: list[int], highest: int) -> None:
        self._write(_STATE, json.dumps({"applied": applied, "highest": highest}).encode())

    def _write(self, name: str, data: bytes) -> None:
        temporary = self._folder / f".{name}"
        temporary.write_bytes(data)
        temporary.chmod(0o600)
        temporary.replace(self._folder / name)


def bundle_store(settings: Settings) -> BundleStore:
    """The application's bundles. Raises BundleError when its key cannot be read."""
    path = settings.folder / settings.policy.bundle_key
    return BundleStore(settings.data_folder / "policy", _public_key(path), settings.app.name)


def _public_key(path: Path) -> Ed25519PublicKey:
    key = _loaded(path, load_pem_public_key)
    if not isinstance(key, Ed25519PublicKey):
        raise BundleError("this is no Ed25519 public key", "openssl pkey -in key.pem -pubout", place=str(path))
    return key


def private_key(path: Path) -> Ed25519PrivateKey:
    """The key that bundles are signed with, from an unencrypted PEM file. Raises BundleError."""
    key = _loaded(path, partial(load_pem_private_key, password=None))
    if not isinstance(key, Ed25519PrivateKey):
        raise BundleError("this is no Ed25519 key", "openssl genpkey -algorithm ed25519 -out key.pem", place=str(path))
    return key


def _loaded(path: Path, load: Any) -> Any:
    try:
        return load(path.read_bytes())
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise BundleError(
            f"the key of policy bundles cannot be read: {error}",
            "Make one: openssl genpkey -algorithm ed25519 -out key.pem",
            place=str(path),
        ) from None
