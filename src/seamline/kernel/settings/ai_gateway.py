"""``[ai_gateway]``: language models for those outside and inside, by one door."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from seamline.kernel.settings.auth import loopback
from seamline.kernel.settings.errors import BadValueError, SettingsMissingError, SettingsSyntaxError, WrongTypeError
from seamline.kernel.settings.tables import TableReader

MIB = 1024 * 1024
Ability = Literal["chat", "completions", "embeddings", "rerank", "tools", "vision", "json"]
Choice = Literal["weight", "price", "latency"]
Bound = Literal["", "max_tokens", "max_completion_tokens"]
Personal = Literal["email", "phone", "iban", "card", "ip", "ssn", "secret"]
ENGINES = ("openai", "anthropic", "ollama", "oip", "module")


@dataclass(frozen=True, slots=True, kw_only=True)
class AiTargetSettings:
    """One entry of ``[[ai_gateway.models.<alias>.targets]]``: an engine that answers for the alias. Prices per
    million tokens, in whatever currency budgets are in."""

    engine: str
    """``openai:https://host/v1``, ``anthropic:...``, ``ollama:...``, ``oip:...``, or ``module:<contract>``."""
    model: str = ""
    """As the engine calls it; the alias when empty."""
    key: str = field(default="", repr=False)
    """What the engine wants to see; better in the variable that ``key_variable`` names."""
    key_variable: str = ""
    weight: float = 1
    tier: int = 0
    """Those of a higher number are asked when those of a lower one cannot."""
    able: tuple[Ability, ...] = ()
    """Empty is whatever its kind of engine has."""
    context_tokens: int = 0
    """The most that question and answer may have together; 0 is not known."""
    bound: Bound = ""
    """What the engine calls the most tokens of an answer, where the caller used neither name; empty is
    ``max_completion_tokens`` for OpenAI itself and ``max_tokens`` for others."""
    connections_max: int = 256
    input_price: float = 0
    cached_input_price: float = 0
    """0 is ``input_price``; likewise the next."""
    cache_write_price: float = 0
    output_price: float = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AiModelSettings:
    """``[ai_gateway.models.<alias>]``: what callers name, and who answers."""

    targets: tuple[AiTargetSettings, ...] = ()
    choose: Choice = "weight"
    """Among the targets of a tier: by weight, the cheapest, or the quickest to begin."""
    sticky: bool = False
    """A key stays with its target while that is well, so that prompt caches are warm."""
    patience_s: float = 1.5
    """Without a first token for so long, or for twice what is usual if that is longer, another target is asked too."""
    first_token_timeout_s: float = 30
    """Then a target that has not begun is given up."""
    stall_timeout_s: float = 15
    """So long may pass between two pieces of an answer."""
    timeout_s: float = 600
    """For the whole answer."""
    resume: bool = False
    """A chat answer that breaks off goes on with another target, which is shown what was said so far."""
    output_tokens_max: int = 0
    """What a caller may ask for at most, and gets if it does not say; 0 leaves it to the engine."""
    answer_cache_s: float = 0
    """How long an answer to the same question at temperature 0 is given again, to the same key; 0 is off."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AiBudgetSettings:
    """One entry of ``[[ai_gateway.budgets]]``: what each of them may use in a period; zero is unlimited."""

    name: str
    by: Literal["key", "user", "tenant", "team", "agent", "all"]
    tokens: int = 0
    money: float = 0
    requests: int = 0
    period: Literal["minute", "hour", "day", "month", "total"] = "month"
    models: tuple[str, ...] = ()
    """Aliases that it holds for; empty is all."""


@dataclass(frozen=True, slots=True, kw_only=True)
class AiGatewaySettings:
    """``[ai_gateway]``."""

    listen: str = ""
    """Where OpenAI's and Anthropic's wires are spoken; empty for nowhere, port 0 for any."""
    open: bool = False
    """Answer without a key, on this machine's own addresses only."""
    keys: str = "ai-keys.db"
    """The file of virtual keys and budgets, below the data folder or absolute."""
    body_bytes_max: int = 8 * MIB
    """Of one request."""
    answer_bytes_max: int = 16 * MIB
    """Of one answer."""
    connections_max: int = 10_000
    retry_ratio: float = 0.2
    """Of the requests of the last ten seconds, so many may be asked a second time."""
    retries_min: int = 100
    """In ten seconds that may be in any case."""
    guardrails: tuple[Literal["size", "lists", "pii", "injection", "schema"], ...] = ()
    """The steps, in their order."""
    prompt_tokens_max: int = 0
    tools: tuple[str, ...] = ()
    """That may be offered to a model, by name, with ``*`` at the end for any that begin so; empty is all."""
    domains: tuple[str, ...] = ()
    """Of links and pictures in what is asked; empty is all."""
    pii: tuple[Personal, ...] = ("email", "phone", "iban", "card", "ip", "ssn", "secret")
    pii_action: Literal["mask", "block"] = "mask"
    """Masked values are put back into the answer."""
    injection_threshold: float = 0.8
    schema_repairs: int = 1
    """How often a model is asked again for an answer that is not of the schema."""
    budgets: tuple[AiBudgetSettings, ...] = ()
    models: Mapping[str, AiModelSettings] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def address(self) -> tuple[str, int]:
        """``listen`` as host and port."""
        host, _, port = self.listen.rpartition(":")
        return host.strip("[]"), int(port)


def read_ai_gateway(reader: TableReader, table: dict[str, Any]) -> AiGatewaySettings:
    """``[ai_gateway]``, checked. Raises a SettingsError."""
    reader.known(table, [item.name for item in fields(AiGatewaySettings)], "ai_gateway")
    names = {item.name for item in fields(AiGatewaySettings)} - {"models", "budgets"}
    rest = {key: value for key, value in table.items() if key not in ("models", "budgets")}
    found = AiGatewaySettings(**reader.values(AiGatewaySettings, "ai_gateway", rest, names))
    host, _, port = found.listen.rpartition(":")
    if found.listen and (not host or not port.isdigit() or int(port) > 65535):
        raise _refused(reader, "ai_gateway", "listen", found.listen, "Write 127.0.0.1:8090, or leave it empty.")
    if found.open and found.listen and not loopback(found.address[0]):
        remedy = "Without keys it listens on this machine only: 127.0.0.1:8090, or open = false."
        raise _refused(reader, "ai_gateway", "listen", found.listen, remedy)
    for key, least in (("body_bytes_max", 1024), ("answer_bytes_max", 1024), ("connections_max", 1)):
        if getattr(found, key) < least:
            raise _refused(reader, "ai_gateway", key, getattr(found, key), f"{least} or more.")
    models = reader.table(table, "models", "ai_gateway.models")
    return replace(
        found,
        models=MappingProxyType({alias: _model(reader, alias, entry) for alias, entry in models.items()}),
        budgets=_budgets(reader, table),
    )


def load_ai_gateway(path: Path, environment: Mapping[str, str] | None = None) -> AiGatewaySettings:
    """``[ai_gateway]`` of a file that may hold nothing else, for a gateway that runs alone. Raises a SettingsError."""
    try:
        text = path.read_text(encoding="utf-8")
        tables = tomllib.loads(text)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsMissingError(f"{str(path)!r} cannot be read: {error}", "Name a file in UTF-8.") from error
    except tomllib.TOMLDecodeError as error:
        raise SettingsSyntaxError(f"not TOML: {error}", "Correct that line.", place=str(path)) from error
    reader = TableReader(text, environment if environment is not None else os.environ)  # noqa: TID251 (the one place)
    return read_ai_gateway(reader, reader.table(tables, "ai_gateway"))


def _model(reader: TableReader, alias: str, entry: Any) -> AiModelSettings:
    section = f"ai_gateway.models.{alias}"
    if not isinstance(entry, dict):
        raise WrongTypeError(f"{alias} is {entry!r}, not a table", f"Write [{section}].", place=reader.place(section))
    table = dict(cast("dict[str, Any]", entry))
    targets = _entries(reader, table, section, "targets", AiTargetSettings)
    if not targets:
        raise BadValueError(
            f"the model {alias!r} has no target", f"Add [[{section}.targets]] with engine.", place=reader.place(section)
        )
    names = {item.name for item in fields(AiModelSettings)} - {"targets"}
    found = AiModelSettings(**reader.values(AiModelSettings, section, table, names, overrides=False))
    for target in targets:
        _check_target(reader, f"{section}.targets", target)
    for key in ("patience_s", "first_token_timeout_s", "stall_timeout_s", "timeout_s"):
        if getattr(found, key) <= 0:
            raise _refused(reader, section, key, getattr(found, key), "More than 0 seconds.")
    return replace(found, targets=tuple(targets))


def _check_target(reader: TableReader, section: str, target: AiTargetSettings) -> None:
    scheme, _, rest = target.engine.partition(":")
    parts = urlsplit(rest)
    named = rest.isidentifier() if scheme == "module" else parts.scheme in ("http", "https") and bool(parts.hostname)
    if scheme not in ENGINES or not named:
        remedy = f"One of {', '.join(ENGINES)}, a colon, and an http(s) URL or the name of a contract."
        raise _refused(reader, section, "engine", target.engine, remedy)
    if target.connections_max < 1:
        raise _refused(reader, section, "connections_max", target.connections_max, "1 or more.")
    for key in ("input_price", "cached_input_price", "cache_write_price", "output_price"):
        _check_amount(reader, section, key, getattr(target, key))


def _budgets(reader: TableReader, table: dict[str, Any]) -> tuple[AiBudgetSettings, ...]:
    found = _entries(reader, dict(table), "ai_gateway", "budgets", AiBudgetSettings)
    seen: set[str] = set()
    for each in found:
        if each.name in seen:
            raise _refused(reader, "ai_gateway.budgets", "name", each.name, "Name each once.")
        if not (each.tokens or each.money or each.requests):
            raise _refused(reader, "ai_gateway.budgets", "name", each.name, "Say tokens, money or requests.")
        _check_amount(reader, "ai_gateway.budgets", "money", each.money)
        seen.add(each.name)
    return tuple(found)


def _check_amount(reader: TableReader, section: str, key: str, amount: float) -> None:
    """Money is counted in billionths; what a number was written with is its shortest decimal."""
    written = Decimal(str(amount))
    if not written.is_finite() or written != round(written, 9):
        raise _refused(reader, section, key, amount, "An amount of at most nine decimals.")


def _entries(reader: TableReader, table: dict[str, Any], section: str, key: str, kind: Callable[..., Any]) -> list[Any]:
    found = table.pop(key, [])
    if not isinstance(found, list) or not all(isinstance(each, dict) for each in cast("list[Any]", found)):
        raise WrongTypeError(
            f"{key} is {found!r}", f"Write [[{section}.{key}]] tables.", place=reader.place(section, key)
        )
    return [
        kind(**reader.values(cast("type", kind), f"{section}.{key}", each, overrides=False))
        for each in cast("list[dict[str, Any]]", found)
    ]


def _refused(reader: TableReader, section: str, key: str, value: object, remedy: str) -> BadValueError:
    return BadValueError(f"{key} is {value!r}", remedy, place=reader.place(section, key))
