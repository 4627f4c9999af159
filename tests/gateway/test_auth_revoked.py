"""Who was revoked does not come back by a session that is renewed, nor by a provider that remembers them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.gateway.auth_rig import ADA, place, ticket_of

from seamline.gateway.auth.api_keys import ApiKeys
from seamline.mesh.identity.revocation import Revocation, Revocations
from seamline.module.principal import Subject, User

DEVELOPMENT: Mapping[str, Any] = {"development": "users.toml"}


class Known:
    """Revocations behind a door, as a host puts them there."""

    def __init__(self) -> None:
        self.all: Revocations | None = None

    def refuses(self, user: User) -> str | None:
        return self.all.refuses(Subject(user)) if self.all is not None else None

    def revoke(self, entries: list[Revocation]) -> None:
        assert self.all is not None
        self.all.revoke(entries)


async def test_a_renewed_session_is_no_new_sign_in(tmp_path: Path):
    """The provider vouches for the user again after they were revoked: the session is not good for all that."""
    known = Known()
    async with place(tmp_path, refuses=known.refuses, recheck_s=60, **DEVELOPMENT) as site:
        known.all = Revocations(site.clock)
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
    known = Known()
    async with place(tmp_path, refuses=known.refuses, **DEVELOPMENT) as site:
        known.all = Revocations(site.clock)
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
    known = Known()
    both = ADA + ADA.replace("ada", "bob")
    (tmp_path / "users.toml").write_text(both, encoding="utf-8")
    async with place(tmp_path, refuses=known.refuses, revoke=known.revoke, **DEVELOPMENT) as site:
        known.all = Revocations(site.clock)
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
    known = Known()
    async with place(tmp_path, refuses=known.refuses, revoke=known.revoke, api_keys=True) as site:
        known.all = Revocations(site.clock)
        keys = ApiKeys(site.door.records)
        key, _ = await keys.create("nightly", valid_s=3600)
        await keys.revoke(key.id)
        await site.door.look()
        assert known.all.knows("client", key.id)
