"""The page on settings is true: every key with its default and unit, and every example as the settings read it."""

from __future__ import annotations

import dataclasses
import re
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import pytest

from seamline.cli.output import status_of
from seamline.kernel.settings import (
    AdminSettings,
    AiBudgetSettings,
    AiGatewaySettings,
    AiModelSettings,
    AiTargetSettings,
    AppSettings,
    AuditSettings,
    AuthSettings,
    CertificateClientSettings,
    ContractModelSettings,
    DataSettings,
    EventsSettings,
    FederationSettings,
    GatewaySettings,
    IdentitySettings,
    IssuerSettings,
    LimitsSettings,
    MeshRules,
    MeshSettings,
    ModelGuardSettings,
    ModelsSettings,
    ModuleData,
    ObserveSettings,
    QuotaSettings,
    RateSettings,
    RouteSettings,
    RunSettings,
    SagasSettings,
    SecretsSettings,
    Settings,
    SettingsError,
    SidecarSettings,
    SignalSettings,
    SloSettings,
    TelemetrySettings,
    WebhookSettings,
)
from seamline.kernel.settings import errors as settings_errors
from seamline.module import compile_contract
from seamline.run.application import Application

ROOT = Path(__file__).parent.parent
TEXT = (ROOT / "docs" / "settings.md").read_text(encoding="utf-8")
SECTIONS: Mapping[str, type] = {
    "[app]": AppSettings,
    "[gateway]": GatewaySettings,
    "[[gateway.routes]]": RouteSettings,
    "[auth]": AuthSettings,
    "[[auth.issuers]]": IssuerSettings,
    "[[auth.certificates]]": CertificateClientSettings,
    "[[auth.signals]]": SignalSettings,
    "[limits]": LimitsSettings,
    "[[limits.rates]]": RateSettings,
    "[[limits.quotas]]": QuotaSettings,
    "[audit]": AuditSettings,
    "[admin]": AdminSettings,
    "[data]": DataSettings,
    "[data.modules.<module>]": ModuleData,
    "[events]": EventsSettings,
    "[[events.webhooks]]": WebhookSettings,
    "[sagas]": SagasSettings,
    "[telemetry]": TelemetrySettings,
    "[observe]": ObserveSettings,
    "[observe.slos.<name>]": SloSettings,
    "[identity]": IdentitySettings,
    "[identity.federation.<domain>]": FederationSettings,
    "[secrets]": SecretsSettings,
    "[sidecars.<module>]": SidecarSettings,
    "[ai_gateway]": AiGatewaySettings,
    "[ai_gateway.models.<alias>]": AiModelSettings,
    "[[ai_gateway.models.<alias>.targets]]": AiTargetSettings,
    "[[ai_gateway.budgets]]": AiBudgetSettings,
    "[models]": ModelsSettings,
    "[models.<Contract>]": ContractModelSettings,
    "[models.<Contract>.guard]": ModelGuardSettings,
    "[run]": RunSettings,
    "[mesh]: connections": MeshSettings,
    "[mesh]: rules of calls": MeshRules,
}
TABLES_OF_RULES = {
    "[mesh]: connections": ("default", "contracts", "methods"),
    "[auth]": ("issuers", "certificates", "signals"),
    "[observe]": ("slos",),
    "[models]": ("contracts",),
    "[models.<Contract>]": ("guard",),
    "[ai_gateway]": ("models", "budgets"),
    "[ai_gateway.models.<alias>]": ("targets",),
}
ROW = re.compile(r"^\| `(?P<key>\w+)` \| (?P<default>.*?) \| (?P<unit>[^|]*?) ?\| ?(?P<meaning>[^|]*)\|$", re.MULTILINE)
UNITS = {"_s": "seconds", "_ms": "milliseconds", "_percent": "percent", "_ratio": "share"}
EXAMPLE = re.compile(r"^```toml\n(?P<toml>.*?)^```\n(?:```text\n(?P<error>.*?)\n```)?", re.MULTILINE | re.DOTALL)
EXAMPLES = list(EXAMPLE.finditer(TEXT))
SHOP = '\n[app]\nname = "shop"\nmodules = ["shop.frontend", "shop.orders", "shop.payments"]\n'


def section(title: str) -> str:
    """The text below a heading."""
    found = re.search(rf"^## {re.escape(title)}\n(.*?)(?=^## |\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found, title
    return found[1]


def rows(title: str) -> dict[str, re.Match[str]]:
    return {row["key"]: row for row in ROW.finditer(section(title))}


def plain(value: Any) -> Any:
    """A default as TOML would give it."""
    if isinstance(value, tuple):
        return [plain(each) for each in cast("tuple[Any, ...]", value)]
    return dict(cast("Mapping[str, Any]", value)) if isinstance(value, Mapping) else value


def default_of(item: dataclasses.Field[Any]) -> Any:
    if item.default_factory is not dataclasses.MISSING:
        return plain(item.default_factory())
    return plain(item.default)


@pytest.mark.parametrize("title", SECTIONS)
def test_every_key_is_on_the_page_with_its_default(title: str):
    """No key is left out, none is made up, and each default is the code's."""
    written = rows(title)
    tables = TABLES_OF_RULES.get(title, ())
    items = {item.name: item for item in dataclasses.fields(SECTIONS[title]) if item.name not in tables}
    assert set(written) == set(items)
    for name, item in items.items():
        said = written[name]["default"]
        if item.default is dataclasses.MISSING and item.default_factory is dataclasses.MISSING:
            assert said == "required", name
            continue
        value, default = tomllib.loads(f"it = {said.strip('`')}")["it"], default_of(item)
        assert (value, isinstance(value, bool)) == (default, isinstance(default, bool)), name


@pytest.mark.parametrize("title", SECTIONS)
def test_the_unit_is_the_one_in_the_name(title: str):
    """A key whose name ends in a unit has that unit on the page."""
    for name, row in rows(title).items():
        if "bytes" in name:
            assert row["unit"] == "bytes", name
        elif name.endswith("_per_s"):
            assert row["unit"].endswith("per second"), name
        else:
            for ending, unit in UNITS.items():
                if name.endswith(ending):
                    assert row["unit"] == unit, name


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda found: found["toml"].partition("\n")[0])
def test_every_example_is_read_as_the_page_says(example: re.Match[str], tmp_path: Path):
    """It loads, or it gets the very error that stands below it."""
    text = example["toml"]
    (tmp_path / "seamline.toml").write_text(text if "[app]" in text else text + SHOP, encoding="utf-8")
    if example["error"] is None:
        Settings.load(tmp_path, {})
        return
    with pytest.raises(SettingsError) as raised:
        Settings.load(tmp_path, {})
    assert str(raised.value) == example["error"]


def test_the_examples_name_contracts_and_methods_that_exist(monkeypatch: pytest.MonkeyPatch):
    """Those of the boutique, so that a rule on the page can be tried."""
    boutique = ROOT / "examples" / "boutique"
    monkeypatch.setattr(sys, "path", [str(boutique), *sys.path])
    methods = {
        contract.__name__: set(compile_contract(contract).methods) for contract in Application.load(boutique).contracts
    }
    named = re.findall(r'^\[mesh\.(contracts\.(\w+)|methods\."(\w+)\.(\w+)")\]', TEXT, re.MULTILINE)
    assert len(named) > 8
    for _, contract, owner, method in named:
        assert (contract or owner) in methods
        assert not method or method in methods[owner]


def test_every_rule_worth_an_example_has_one():
    """Retries, hedging, canary, mirror, faults, limits, priorities."""
    used = {key for found in EXAMPLES for key in re.findall(r"^(\w+) = ", found["toml"], re.MULTILINE)}
    assert used >= {
        "retries", "hedge_after_ms", "canary", "mirror_percent", "mirror_to", "inject_delay_ms", "inject_error",
        "concurrency_max", "circuit_error_ratio", "outlier_failures", "priority", "timeout_s",
    }  # fmt: skip


def test_the_variables_of_the_page_change_what_they_name(tmp_path: Path):
    """All at once, over the file."""
    block = re.search(r"^```sh\n(.*?)^```", section("The environment"), re.MULTILINE | re.DOTALL)
    assert block
    environment = dict(line.split("=", 1) for line in block[1].splitlines())
    (tmp_path / "seamline.toml").write_text(SHOP, encoding="utf-8")
    read = Settings.load(tmp_path, environment)
    assert read.gateway.listen == "0.0.0.0:80"
    assert read.gateway.cors_origins == ("https://shop.example", "https://admin.example")
    assert (read.telemetry.log, read.mesh.default.timeout_s) == ("json", 3.5)
    assert not read.mesh.default.concurrency_adaptive
    assert read.replicas == {"orders": 3}
    assert read.data.url_of("orders") == environment["SEAMLINE_DATA_MODULES_ORDERS_URL"]
    assert len(environment) == 7


def test_every_error_of_the_settings_is_on_the_page():
    """By its code, and with the exit status that they all have."""
    assert f"exit status {status_of('SL1000')}." in TEXT
    codes = {
        each.code
        for each in vars(settings_errors).values()
        if isinstance(each, type) and issubclass(each, SettingsError)
    }
    assert set(re.findall(r"^\| (SL1\d{3}) ", TEXT, re.MULTILINE)) == codes - {"SL1000"}
