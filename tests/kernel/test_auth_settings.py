"""[auth] is refused where it would let in more than was meant."""

from __future__ import annotations

from pathlib import Path

import pytest

from seamline.kernel.settings import Settings, SettingsError

APP = '[app]\nname = "shop"\nmodules = []\n'
REAL = '[auth]\nissuer = "https://id.example"\nclient_id = "shop"\n'


def load(folder: Path, text: str, **environment: str) -> Settings:
    (folder / "seamline.toml").write_text(APP + text, encoding="utf-8")
    return Settings.load(folder, environment)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[auth]\nissuer = "https://id.example"', "without client_id"),
        ('[auth]\nissuer = "http://id.example"\nclient_id = "x"', "'http://id.example'"),
        ('[auth]\nissuer = "https://user:pw@id.example"\nclient_id = "x"', "issuer is"),
        (REAL + 'development = "users.toml"', "both issuer and development"),
        (REAL + 'algorithms = ["none"]', "'none' is not an algorithm"),
        (REAL + 'algorithms = ["HS256"]', "'HS256' is not an algorithm"),
        (REAL + "clock_skew_s = 3600", "clock_skew_s is 3600"),
        (REAL + 'public_url = "http://shop.example"', "public_url is"),
        (REAL + 'public_url = "https://shop.example/path"', "public_url is"),
        (REAL + '[gateway]\nlisten = "0.0.0.0:80"', "public_url is empty"),
        ('[auth]\ndevelopment = "u"\n[gateway]\nlisten = "0.0.0.0:80"', "where others can reach it"),
        ('[auth]\ndevelopment = "u"\n[gateway]\nlisten = "shop.example:80"', "where others can reach it"),
        ('[auth]\nclient_ca = "ca.pem"', "does not speak TLS"),
        ('[auth]\n[[auth.issuers]]\nissuer = "https://id.example"\naudience = []', "audience is empty"),
        ('[auth]\n[[auth.issuers]]\nissuer = "https://id.example"', "audience is missing"),
        ('[auth]\nissuers = "https://id.example"', "issuers is"),
        ("[auth]\nsesion_idle_s = 3", "'session_idle_s'"),
    ],
)
def test_mistakes(tmp_path: Path, text: str, says: str):
    """Each is one sentence that names the place, before anything starts."""
    with pytest.raises(SettingsError, match="SL10") as raised:
        load(tmp_path, text)
    assert says in str(raised.value)
    assert "seamline.toml" in str(raised.value)


@pytest.mark.parametrize("listen", ["127.0.0.1:8080", "localhost:80", "[::1]:0", "127.3.2.1:0"])
def test_the_development_provider_stays_on_this_machine(tmp_path: Path, listen: str):
    """Every name of this machine will do."""
    assert load(tmp_path, f'[auth]\ndevelopment = "u"\n[gateway]\nlisten = "{listen}"').auth.interactive


def test_secrets_come_from_the_environment_and_are_not_shown(tmp_path: Path):
    """Neither of them is in the text of the settings."""
    auth = load(
        tmp_path, REAL, SEAMLINE_AUTH_CLIENT_SECRET="canary-one", SEAMLINE_AUTH_SESSION_SECRET="canary-two"
    ).auth
    assert (auth.client_secret, auth.session_secret) == ("canary-one", "canary-two")
    assert "canary" not in repr(auth)


def test_nothing_is_asked_without_a_way_to_answer(tmp_path: Path):
    """An application without [auth], or with limits of sessions only, has no door."""
    assert not load(tmp_path, "").auth.enabled
    assert not load(tmp_path, "[auth]\nsession_idle_s = 60").auth.enabled
    assert load(tmp_path, "[auth]\napi_keys = true").auth.enabled
