"""``[models]``: where models' files come from and whose are trusted. ``[models.<Contract>]``: who answers its calls."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Literal, cast

from seamline.kernel.settings.errors import BadValueError, WrongTypeError
from seamline.kernel.settings.tables import TableReader

_CONTRACT = re.compile(r"[A-Z]\w*")
_KEY = re.compile(r"principal|call|argument:[a-z_]\w*(\.\w+)*")
_TRUSTED = re.compile(r"ed25519:[A-Za-z0-9+/]{43}=")
SOURCES = ("file:", "s3:", "oci:", "mlflow:", "hf:")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelGuardSettings:
    """``[models.<Contract>.guard]``: when a canary is rolled back without anybody's hand."""

    watch: tuple[Literal["errors", "latency", "quality"], ...] = ("errors", "latency", "quality")
    """What of the canary is compared with the champion; nothing for no guard."""
    alarms_ratio: float = 0.01
    """The share of good canaries that may be rolled back by mistake, however long and often one looks."""
    calls_min: int = 20
    """So many calls the canary answers before it is judged."""
    errors_rise_ratio: float = 0.01
    """The share of errors must have risen by so much, besides being a proven rise."""
    latency_rise_ratio: float = 0.25
    """A call is slow when it takes so much longer than nine in ten of the champion's."""
    quality_fall_ratio: float = 0.02
    """The mean score must have fallen by so much, besides being a proven fall."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ContractModelSettings:
    """``[models.<Contract>]``. What is changed while it runs (``seamline models``) goes before the first four."""

    weights: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))
    """Version to its share of the calls; the first that is declared has all when empty."""
    key: str = "call"
    """What keeps to one version: ``principal``, ``argument:user_id`` (or ``argument:request.user_id``); ``call`` for
    nothing."""
    shadow: tuple[str, ...] = ()
    """Versions that are asked, too, and whose answers nobody gets."""
    shadow_ratio: float = 1.0
    """The share of the calls that shadows are asked."""
    compare: Literal["equal", "numeric", "cosine"] = "equal"
    """How a shadow's answer is compared."""
    tolerance: float = 1e-6
    """How far numbers, or the cosine from 1, may lie apart."""
    artefacts: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Version to its files in the registry, such as ``minilm:2`` or ``minilm@champion``."""
    engine: str = ""
    """Who answers instead of the module's class: ``openai:https://host/v1``, ``ollama:http://host``, or a model in a
    file: ``gguf:weights.gguf``."""
    engine_variable: str = ""
    """An environment variable, such as ``OPENAI_BASE_URL``. Where it is set, the OpenAI-compatible engine at that
    address answers, and not ``engine``."""
    engine_model: str = ""
    """What the model is called there."""
    engine_key: str = ""
    """The name of the environment variable that holds the key."""
    guard: ModelGuardSettings = field(default_factory=ModelGuardSettings)


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelsSettings:
    """``[models]``."""

    registry: str = "models"
    """The folder of the registry, relative to the data folder."""
    trusted_keys: tuple[str, ...] = ()
    """Public keys (``ed25519:...``) whose signature a model needs; with none, unsigned ones are taken."""
    allow_pickle: bool = False
    """Take files that run code when they are loaded."""
    sources: tuple[str, ...] = ()
    """What models may be added from, such as ``hf:sentence-transformers/``; anything when empty."""
    size_max_mb: float = 20_000
    """Of one model's files, together."""
    s3_endpoint: str = ""
    """Of an S3 that is not AWS's."""
    oci_login: str = field(default="", repr=False)
    """``user:password`` or a token, of an OCI registry."""
    oci_plain_http: bool = False
    """Speak HTTP without TLS to an OCI registry, on this machine."""
    hub_endpoint: str = ""
    """The Hugging Face hub, or a mirror, as `https://host`. Nobody is asked who was not named."""
    hub_token: str = field(default="", repr=False)
    mlflow: str = ""
    """The url of an MLflow server."""
    contracts: Mapping[str, ContractModelSettings] = field(default_factory=lambda: MappingProxyType({}))

    def of(self, contract: str) -> ContractModelSettings:
        """Those of a contract, by its short name."""
        return self.contracts.get(contract) or ContractModelSettings()


def read_models(reader: TableReader, table: dict[str, Any]) -> ModelsSettings:
    """``[models]``, checked. Raises a SettingsError."""
    plain = {key: value for key, value in table.items() if not _CONTRACT.fullmatch(key)}
    found = reader.section(ModelsSettings, "models", plain, {"contracts"})
    for key in found.trusted_keys:
        if not _TRUSTED.fullmatch(key):
            raise BadValueError(
                f"{key!r} is no public key",
                "Write ed25519: and 32 bytes in base64; `seamline models sign --new-key` prints one.",
                place=reader.place("models", "trusted_keys"),
            )
    for source in found.sources:
        if not source.startswith(SOURCES):
            raise BadValueError(
                f"{source!r} is no source", f"Begin with {', '.join(SOURCES)}.", place=reader.place("models", "sources")
            )
    contracts = {name: _contract(reader, name, value) for name, value in table.items() if _CONTRACT.fullmatch(name)}
    return replace(found, contracts=MappingProxyType(contracts))


def _contract(reader: TableReader, name: str, value: Any) -> ContractModelSettings:
    section = f"models.{name}"
    if not isinstance(value, dict):
        raise WrongTypeError(f"{name} is {value!r}, not a table", f"Write [{section}].", place=reader.place(section))
    table = cast("dict[str, Any]", value)
    own = {key: each for key, each in table.items() if key != "guard"}
    names = {item.name for item in fields(ContractModelSettings)} - {"guard"}
    values = reader.values(ContractModelSettings, section, own, names, overrides=False)
    guard = reader.values(
        ModelGuardSettings, f"{section}.guard", reader.table(table, "guard", f"{section}.guard"), overrides=False
    )
    found = ContractModelSettings(**values, guard=ModelGuardSettings(**guard))
    if not _KEY.fullmatch(found.key):
        raise BadValueError(
            f"key is {found.key!r}", "principal, call or argument:<name>.", place=reader.place(section, "key")
        )
    if found.weights and not 0 < math.fsum(found.weights.values()) < math.inf:
        raise BadValueError(
            "the weights add up to nothing",
            "Give one version at least a share.",
            place=reader.place(section, "weights"),
        )
    if not 0 < found.guard.alarms_ratio < 1:
        fact = f"alarms_ratio is {found.guard.alarms_ratio!r}"
        raise BadValueError(fact, "Between 0 and 1, such as 0.01.", place=reader.place(f"{section}.guard"))
    return found
