"""Every mistake in seamline.toml ends in one sentence with a code, a place and a remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from seamline.kernel.settings import MeshRules, Settings, SettingsError

APP = """\
[app]
name = "shop"
modules = ["shop.front", "shop.cart", "shop.orders"]
"""


def load(folder: Path, text: str, environment: dict[str, str] | None = None) -> Settings:
    (folder / "seamline.toml").write_text(text)
    return Settings.load(folder, environment or {})


def test_a_name_and_modules_are_enough(tmp_path: Path):
    """The smallest file gives defaults, and the two topologies that exist always."""
    settings = load(tmp_path, APP)
    assert settings.trust_domain == "shop.local"
    assert settings.data_folder == tmp_path.resolve() / ".seamline"
    assert settings.policy_folder == tmp_path.resolve() / "policy"
    assert settings.modules == {"front": "shop.front", "cart": "shop.cart", "orders": "shop.orders"}
    assert settings.topologies == {
        "monolith": {"all": ("front", "cart", "orders")},
        "services": {"front": ("front",), "cart": ("cart",), "orders": ("orders",)},
    }
    assert settings.gateway.address == ("127.0.0.1", 8080)
    assert settings.mesh.rules("Any", "method") == MeshRules()


def test_every_section_is_read(tmp_path: Path):
    """Values of all sections arrive typed, and the rest of a topology is spelt out."""
    settings = load(
        tmp_path,
        APP
        + """
topology = "duo"
[topologies.duo]
edge = ["front"]
back = "*"
[replicas]
orders = 2
[gateway]
listen = "[::1]:9000"
head_timeout_s = 3
cors_origins = ["https://a.example"]
[[gateway.routes]]
path = "/cart"
module = "cart"
timeout_s = 5
[data]
url = "postgresql+asyncpg://db/shop"
[data.modules.cart]
url = "sqlite+aiosqlite:///cart.db"
[telemetry]
sample = 1
log = "json"
[mesh]
wire = "http"
frame_bytes_max = 1000
canary = { v2 = 5 }
""",
    )
    assert settings.topologies["duo"] == {"edge": ("front",), "back": ("cart", "orders")}
    assert settings.replicas == {"orders": 2}
    assert settings.gateway.address == ("::1", 9000)
    assert settings.gateway.head_timeout_s == 3
    assert settings.gateway.cors_origins == ("https://a.example",)
    route = settings.gateway.routes[0]
    assert (route.path, route.module, route.timeout_s) == ("/cart", "cart", 5)
    assert settings.data.url_of("cart") == "sqlite+aiosqlite:///cart.db"
    assert settings.data.url_of("front") == "postgresql+asyncpg://db/shop"
    assert settings.telemetry.sample == 1
    assert (settings.mesh.wire, settings.mesh.frame_bytes_max) == ("http", 1000)
    assert settings.mesh.rules("A", "b").canary == {"v2": 5}


def test_a_methods_rule_beats_its_contracts_which_beats_the_code_which_beats_the_default(tmp_path: Path):
    """Rules are looked up from the narrowest table outwards, key by key."""
    mesh = load(
        tmp_path,
        APP
        + """
[mesh]
timeout_s = 1
retries = 1
hedge_after_ms = 1
[mesh.contracts.Payments]
timeout_s = 2
retries = 2
[mesh.methods."Payments.charge"]
timeout_s = 3
""",
    ).mesh
    charge = mesh.rules("Payments", "charge", timeout_s=9, retries=9, hedge_after_ms=9)
    assert (charge.timeout_s, charge.retries, charge.hedge_after_ms) == (3, 2, 9)
    assert mesh.rules("Payments", "refund").timeout_s == 2
    assert mesh.rules("Carts", "add", timeout_s=7).timeout_s == 7
    assert mesh.rules("Carts", "add").timeout_s == 1


def test_the_environment_overrides_the_file(tmp_path: Path):
    """Variables reach sections, replicas, lists and the database of one module."""
    settings = load(
        tmp_path,
        APP + "[gateway]\nlisten = '127.0.0.1:1'\n[replicas]\norders = 2\n",
        {
            "SEAMLINE_GATEWAY_LISTEN": "0.0.0.0:80",
            "SEAMLINE_GATEWAY_COMPRESSION": "false",
            "SEAMLINE_GATEWAY_CORS_ORIGINS": "https://a.example, https://b.example",
            "SEAMLINE_REPLICAS_ORDERS": "4",
            "SEAMLINE_MESH_TIMEOUT_S": "2.5",
            "SEAMLINE_DATA_MODULES_CART_URL": "sqlite+aiosqlite:///x.db",
            "SEAMLINE_APP_TOPOLOGY": "services",
            "SEAMLINE_SOMETHING_ELSE": "not ours to judge",
        },
    )
    assert settings.gateway.listen == "0.0.0.0:80"
    assert settings.gateway.compression is False
    assert settings.gateway.cors_origins == ("https://a.example", "https://b.example")
    assert settings.replicas == {"orders": 4}
    assert settings.mesh.rules("A", "b").timeout_s == 2.5
    assert settings.data.url_of("cart") == "sqlite+aiosqlite:///x.db"
    assert settings.app.topology == "services"


@pytest.mark.parametrize(
    ("text", "code", "place", "says"),
    [
        ('[app\nname = "x"', "SL1002", "seamline.toml:1:", "not TOML"),
        ("modules = []\n[app]", "SL1003", "seamline.toml", "unknown section [modules]"),
        ("", "SL1005", "seamline.toml", "[app] has no name"),
        ("[app]\nname = 'x'\nmodulse = []", "SL1003", "seamline.toml:3 [app] modulse", "'modules'"),
        (APP + "[gatewey]\n", "SL1003", "seamline.toml:4 [gatewey]", "'gateway'"),
        (APP + "[gateway]\nlitsen = 'x:1'", "SL1003", "seamline.toml:5 [gateway] litsen", "'listen'"),
        (APP + "[gateway]\nbody_bytes_max = '1'", "SL1004", "seamline.toml:5", "'1' is not a whole number"),
        (APP + "[gateway]\ncompression = 1", "SL1004", "seamline.toml:5", "1 is not true or false"),
        (APP + "[gateway]\nbody_bytes_max = true", "SL1004", "seamline.toml:5", "True is not a whole number"),
        (APP + "[gateway]\nlisten = '8080'", "SL1005", "seamline.toml:5", "'8080'"),
        (APP + "[gateway]\nlisten = 'a:70000'", "SL1005", "seamline.toml:5", "'a:70000'"),
        (APP + "[gateway]\ntls_key = 'k.pem'", "SL1005", "[gateway]", "TLS needs both files"),
        (APP + "[gateway]\nroutes = [{module = 'kart'}]", "SL1005", "gateway", "'cart'"),
        (APP + "[gateway]\nroutes = [{path = '/'}]", "SL1004", "gateway", "at least module"),
        (APP + "[gateway]\nidle_timeout_s = -1", "SL1005", "seamline.toml:5", "-1.0 is out of range"),
        (APP + "[telemetry]\nlog = 'jsno'", "SL1005", "seamline.toml:5", "'json'"),
        (APP + "[telemetry]\nsample = 2", "SL1005", "seamline.toml:5", "between 0 and 1"),
        (APP + "topology = 'duo'", "SL1005", "seamline.toml:4", "there is no topology 'duo'"),
        (APP + "isolation = 'cpoy'", "SL1005", "seamline.toml:4", "'copy'"),
        (APP + "[topologies.duo]\na = ['frnt']\nb = '*'", "SL1006", "seamline.toml:5", "'front'"),
        (
            APP + "[topologies.duo]\na = ['cart']\nb = ['cart']",
            "SL1006",
            "seamline.toml:6",
            "in 'a' and in 'b'",
        ),
        (APP + "[topologies.duo]\na = ['cart', 'cart']", "SL1006", "seamline.toml:5", "in 'a' and in 'a'"),
        (APP + "[topologies.duo]\na = ['cart']", "SL1006", "seamline.toml:4", "leaves out 'front', 'orders'"),
        (APP + "[topologies.duo]\na = '*'\nb = '*'", "SL1006", "seamline.toml:4", "both take the rest"),
        (
            APP + "[topologies.duo]\ncart = ['front']\nb = '*'",
            "SL1006",
            "seamline.toml:5",
            "called like a module",
        ),
        (APP + "[topologies.monolith]\na = '*'", "SL1006", "seamline.toml:4", "exists always"),
        (APP + "[topologies]\nduo = 1", "SL1004", "seamline.toml:5", "not a table"),
        (APP + "[topologies.duo]\na = 'cart'", "SL1004", "seamline.toml:5", "'cart' is not a list"),
        (APP + "[replicas]\nordres = 2", "SL1006", "seamline.toml:5", "'orders'"),
        (APP + "[replicas]\norders = 0", "SL1005", "seamline.toml:5", "one replica or more"),
        (APP + "[data.modules.carts]\nurl = ''", "SL1005", "seamline.toml:4", "'cart'"),
        (APP + "[data.modules.cart]\nulr = ''", "SL1003", "seamline.toml:5", "'url'"),
        (APP + "[mesh]\nretires = 1", "SL1003", "seamline.toml:5", "'retries'"),
        (APP + "[mesh]\nmirror_percent = 101", "SL1005", "seamline.toml:5", "between 0 and 100"),
        (APP + "[mesh]\ncircuit_error_ratio = 1.5", "SL1005", "seamline.toml:5", "between 0 and 1"),
        (APP + "[mesh.contracts.P]\nwire = 'http'", "SL1003", "seamline.toml:5", "Move it to [mesh]"),
        (APP + "[mesh.methods.charge]\nretries = 1", "SL1005", "seamline.toml:4", "not the name of a method"),
        (APP + "[mesh.methods.'P.charge']\nretrys = 1", "SL1003", "seamline.toml:5", "'retries'"),
        (APP + "[mesh]\ncanary = { v2 = 'all' }", "SL1004", "seamline.toml:5", "'all' is not a number"),
        ("[app]\nname = 'Shop!'", "SL1005", "seamline.toml:2", "small letters"),
        ("[app]\nname = 's'\nmodules = ['a-b c']", "SL1005", "seamline.toml:3", "dotted name"),
        (
            "[app]\nname = 's'\nmodules = ['x.cart', 'y.cart']",
            "SL1005",
            "seamline.toml:3",
            "both called 'cart'",
        ),
        ("[app]\nname = 's'\nmodules = 'x.cart'", "SL1004", "seamline.toml:3", "is not a list"),
    ],
)
def test_a_mistake_is_named_with_its_place_and_remedy(tmp_path: Path, text: str, code: str, place: str, says: str):
    """Each wrong file raises its own code and says where and what."""
    with pytest.raises(SettingsError) as caught:
        load(tmp_path, text)
    assert caught.value.code == code
    assert place in (caught.value.place or "")
    assert says in str(caught.value)
    assert caught.value.remedy


def test_a_misspelt_variable_is_refused(tmp_path: Path):
    """A variable of a known section that nothing reads would otherwise be a silent mistake."""
    with pytest.raises(SettingsError, match="SEAMLINE_GATEWAY_LISTEN") as caught:
        load(tmp_path, APP, {"SEAMLINE_GATEWAY_LITSEN": "127.0.0.1:1"})
    assert caught.value.code == "SL1003"
    with pytest.raises(SettingsError, match="environment SEAMLINE_MESH_RETRIES") as caught:
        load(tmp_path, APP, {"SEAMLINE_MESH_RETRIES": "many"})
    assert caught.value.code == "SL1004"


def test_a_missing_file_is_named(tmp_path: Path):
    with pytest.raises(SettingsError) as caught:
        Settings.load(tmp_path, {})
    assert caught.value.code == "SL1001"
    assert str(tmp_path) in caught.value.fact


def test_an_unusable_data_directory_is_named(tmp_path: Path):
    """A file where the directory should be, and a place where nobody may write."""
    (tmp_path / "taken").write_text("")
    for data in ("taken", "taken/below", "/proc/nothing"):
        with pytest.raises(SettingsError) as caught:
            load(tmp_path, APP + f"data = '{data}'").prepare_data_folder()
        assert caught.value.code == "SL1007"
        assert data in caught.value.fact


def test_the_data_directory_is_made_for_its_owner_only(tmp_path: Path):
    folder = load(tmp_path, APP).prepare_data_folder()
    assert folder.stat().st_mode & 0o777 == 0o700
