"""Who was revoked does not come back by a session that is renewed, nor by a provider that remembers them."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tests.gateway.auth_rig import ADA, place, ticket_of

from seamline.gateway.auth.api_keys import ApiKeys
from seamline.kernel.clock import ManualClock
from seamline.mesh.identity.revocation import Revocation, Revocations
from seamline.module.principal import Subject, User

DEVELOPMENT: Mapping[str, Any] = {"development": "users.toml"}


CLOCK = datetime(2026, 3, 1, 12, tzinfo=UTC)


def behind_a_door() -> dict[str, Any]:
    """Revocations and the question of a door, as a host puts them there."""
    clock = ManualClock(CLOCK)
    known = Revocations(clock)

    def refuses(user: User) -> str | None:
        return known.refuses(Subject(user))

    return {"clock": clock, "revocations": known, "refuses": refuses}


async def test_a_renewed_session_is_no_new_sign_in(tmp_path: Path):
    """The provider vouches for the user again after they were revoked: the session is not good for all that."""
    world = behind_a_door()
    known: Revocations = world["revocations"]
    async with place(tmp_path, **world, recheck_s=60, **DEVELOPMENT) as site:
        browser = site.browser()
        await browser.sign_in()
        site.clock.advance(30)
        known.revoke([Revocation("user", "ada", reason="left")])
        site.clock.advance(60)
        assert (await browser.who())["user"] is None
        site.clock.advance(60)
        await browser.sign_in()
        assert (await browser.who())["user"]["id"] == "ada"


async def test_who_may_not_sign_in_is_asked_once_more_and_then_told(tmp_path: Path):
    """No redirects without end between gateway and provider, and no session for a disabled account."""
    world = behind_a_door()
    known: Revocations = world["revocations"]
    async with place(tmp_path, **world, **DEVELOPMENT) as site:
        known.revoke([Revocation("user", "ada", before=1 << 53, reason="disabled")])
        browser = site.browser()
        asked = await browser.sign_in()
        assert any("prompt=login" in url for url in browser.seen)
        assert asked.status == 200
        form = {"ticket": ticket_of(asked), "name": "ada", "password": "lovelace"}
        told = await browser.send("/.seamline/id/authorize", form)
        assert told.status == 403
        assert "may not sign in" in told.text
        assert (await browser.who())["user"] is None


async def test_a_changed_role_ends_the_sign_ins_before_it(tmp_path: Path):
    """`seamline users` takes a role away: what was signed in with it is void, others' sign-ins are not."""
    world = behind_a_door()
    both = ADA + ADA.replace("ada", "bob")
    (tmp_path / "users.toml").write_text(both, encoding="utf-8")
    async with place(tmp_path, **world, **DEVELOPMENT) as site:
        ada, bob = site.browser(), site.browser()
        await ada.sign_in()
        await bob.sign_in("bob")
        site.clock.advance(5)
        (tmp_path / "users.toml").write_text(both.replace('"support"', '"nothing"', 1), encoding="utf-8")
        await site.door.look()
        assert (await ada.who())["user"] is None
        assert (await bob.who())["user"]["id"] == "bob"
        site.clock.advance(5)
        await ada.sign_in()
        assert (await ada.who())["user"]["roles"] == ["nothing"]


async def test_a_revoked_key_is_revoked_for_everybody(tmp_path: Path):
    """The gateway that finds a key revoked tells all processes, so that what is under way with it ends."""
    world = behind_a_door()
    known: Revocations = world["revocations"]
    async with place(tmp_path, **world, api_keys=True) as site:
        keys = ApiKeys(site.door.records)
        key, _ = await keys.create("nightly", valid_s=3600)
        await keys.revoke(key.id)
        await site.door.look()
        assert known.knows("client", key.id)
