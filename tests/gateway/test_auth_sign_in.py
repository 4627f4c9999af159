"""People sign in and out in a browser, and nobody else is taken for them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import pytest
from tests.gateway.auth_rig import ADA, place, query_of, ticket_of

from seamline.kernel.wire.http1_client import HttpPool

DEVELOPMENT: Mapping[str, Any] = {"development": "users.toml"}


async def test_a_browser_is_sent_to_sign_in_and_back_to_where_it_was(tmp_path: Path):
    """Somebody who opens a page that needs a user ends on that page, as that user."""
    async with place(tmp_path, **DEVELOPMENT) as site:
        browser = site.browser()
        page = await browser.sign_in(at="/members?x=1&y=%2F")
        assert page.status == 200
        assert browser.seen[-1] == f"{site.origin}/members?x=1&y=%2F"
        user = page.json()["user"]
        assert user["id"] == "ada"
        assert (user["name"], user["email"], user["roles"]) == ("Ada Example", "ada@example.com", ["support"])
        assert user["issuer"] == f"{site.origin}/.seamline/id"
        assert list(browser.cookies) == ["__Host-session"]


async def test_nobody_is_nobody(tmp_path: Path):
    """Without a credential there is no user, and a program that needs one hears 401 and how to say who it is."""
    async with place(tmp_path, **DEVELOPMENT) as site:
        browser = site.browser()
        assert (await browser.who())["user"] is None
        refused = await browser.ask("GET", "/members", headers={"accept": "application/json"})
        assert refused.status == 401
        assert refused.json()["code"] == "unauthenticated"
        assert refused.every("www-authenticate")[0] == 'Bearer realm="shop"'


async def test_a_script_of_a_page_is_not_sent_around(tmp_path: Path):
    """A fetch of a page's script that needs a user hears 401, not the HTML of a sign-in page."""
    async with place(tmp_path, **DEVELOPMENT) as site:
        told = {"accept": "text/html", "sec-fetch-mode": "cors", "sec-fetch-site": "same-origin"}
        assert (await site.browser().ask("GET", "/members", headers=told)).status == 401


async def test_who_may_not_is_told_so_and_not_sent_to_sign_in_again(tmp_path: Path):
    """A signed-in user without the role gets 403."""
    (tmp_path / "users.toml").write_text(ADA.replace("support", "shopper"), encoding="utf-8")
    async with place(tmp_path, **DEVELOPMENT) as site:
        browser = site.browser()
        page = await browser.sign_in(at="/desk")
        assert page.status == 403
        assert "may not" in page.text


async def test_signing_out_ends_the_session_also_for_who_kept_the_cookie(tmp_path: Path):
    """The cookie of a session that was ended is worth nothing, wherever it was copied to."""
    async with place(tmp_path, **DEVELOPMENT) as site:
        browser = site.browser()
        await browser.sign_in()
        stolen = dict(browser.cookies)
        page = await browser.open("/.seamline/sign-out")
        assert "Ada Example" in page.text
        done = await browser.send("/.seamline/sign-out", {})
        assert done.status == 200
        assert "__Host-session" not in browser.cookies
        thief = site.browser()
        thief.cookies = stolen
        assert (await thief.who())["user"] is None


async def test_another_gateway_hears_of_the_end_of_a_session(tmp_path: Path):
    """Two gateways share sessions and their ends, by their data directory."""
    async with place(tmp_path, **DEVELOPMENT) as one, place(tmp_path, clock=one.clock, **DEVELOPMENT) as other:
        browser, elsewhere = one.browser(), other.browser()
        await browser.sign_in()
        elsewhere.cookies = dict(browser.cookies)
        assert (await elsewhere.who())["user"]["id"] == "ada"
        await browser.send("/.seamline/sign-out", {})
        await other.door.look()
        assert (await elsewhere.who())["user"] is None


async def test_the_end_of_a_session_is_heard_also_after_older_ones_are_forgotten(tmp_path: Path):
    """What is forgotten makes no room that a later change is lost in."""
    async with (
        place(tmp_path, session_max_s=600, **DEVELOPMENT) as one,
        place(tmp_path, clock=one.clock, session_max_s=600, **DEVELOPMENT) as other,
    ):
        for _ in range(3):
            browser, elsewhere = one.browser(), other.browser()
            await browser.sign_in()
            elsewhere.cookies = dict(browser.cookies)
            assert (await elsewhere.who())["user"]["id"] == "ada"
            await browser.send("/.seamline/sign-out", {})
            await other.door.look()
            assert (await elsewhere.who())["user"] is None
            one.clock.advance(700)
            await one.door.records.forget()
            assert await one.door.records.changes(0) == []


async def test_the_session_is_new_at_each_sign_in(tmp_path: Path):
    """A second sign-in has another id, and the first session is over: nobody can plant one to be raised later."""
    async with place(tmp_path, **DEVELOPMENT) as site:
        browser, keeper = site.browser(), site.browser()
        first = (await browser.sign_in(at="/members")).json()["user"]["session"]
        keeper.cookies = dict(browser.cookies)
        second = (await browser.sign_in(at="/.seamline/sign-in?return=/members")).json()["user"]["session"]
        assert first != second
        assert (await keeper.who())["user"] is None


@pytest.mark.parametrize("value", ["planted", "", "AAAA", "x" * 5000, "%00", '"', "a" * 3000])
async def test_a_planted_cookie_is_no_session(tmp_path: Path, value: str):
    """What this gateway did not seal is as good as no cookie, and does not survive a sign-in."""
    async with place(tmp_path, **DEVELOPMENT) as site:
        browser = site.browser()
        browser.cookies["__Host-session"] = value
        assert (await browser.who())["user"] is None
        await browser.sign_in()
        assert browser.cookies["__Host-session"] != value


async def test_a_changed_cookie_is_no_session(tmp_path: Path):
    """Each byte of the sealed value counts, and so does the purpose it was sealed for."""
    async with place(tmp_path, **DEVELOPMENT) as site:
        browser = site.browser()
        await browser.sign_in()
        good = browser.cookies["__Host-session"]
        for position in (0, 5, 20, len(good) // 2, len(good) - 2):
            letter = "A" if good[position] != "A" else "B"
            browser.cookies["__Host-session"] = good[:position] + letter + good[position + 1 :]
            assert (await browser.who())["user"] is None, position
        browser.cookies["__Host-session"] = site.door.sealer.seal(b"sign-in", b"whatever")
        assert (await browser.who())["user"] is None


async def test_two_session_cookies_are_none(tmp_path: Path):
    """A cookie planted beside the real one by a neighbour does not choose who somebody is."""
    async with place(tmp_path, **DEVELOPMENT) as site:
        browser = site.browser()
        await browser.sign_in()
        good = browser.cookies["__Host-session"]
        browser.cookies.clear()
        assert (await browser.who(cookie=f"__Host-session={good}"))["user"]["id"] == "ada"
        assert (await browser.who(cookie=f"__Host-session={good}; __Host-session=planted"))["user"] is None


async def test_a_session_ends_when_idle_and_in_any_case(tmp_path: Path):
    """Half an hour unused ends it; use prolongs it, but not beyond its longest."""
    async with place(tmp_path, session_idle_s=1800, session_max_s=7200, recheck_s=100_000, **DEVELOPMENT) as site:
        browser = site.browser()
        await browser.sign_in()
        site.clock.advance(1801)
        assert (await browser.who())["user"] is None
        await browser.sign_in()
        for _ in range(7):
            site.clock.advance(1000)
            assert (await browser.who())["user"] is not None
        site.clock.advance(1000)
        assert (await browser.who())["user"] is None


async def test_the_cookie_of_a_used_session_is_renewed_but_not_into_public_answers(tmp_path: Path):
    """An answer that caches may keep carries nobody's session."""
    async with place(tmp_path, **DEVELOPMENT) as site:
        browser = site.browser()
        await browser.sign_in()
        site.clock.advance(200)
        assert not (await browser.ask("GET", "/public")).every("set-cookie")
        (line,) = (await browser.ask("GET", "/who")).every("set-cookie")
        assert line.startswith("__Host-session=")
        assert {"Secure", "HttpOnly", "SameSite=Lax", "Path=/"} <= {part.strip() for part in line.split(";")}


async def test_an_app_neither_sees_nor_sets_the_session_cookie(tmp_path: Path):
    """A module behind the gateway cannot steal a session, and cannot plant one."""
    async with place(tmp_path, **DEVELOPMENT) as site:
        browser = site.browser()
        await browser.sign_in()
        browser.cookies["basket"] = "7"
        assert (await browser.who())["cookie"] == "basket=7"
        reply = await browser.ask("GET", "/set")
        assert reply.every("set-cookie") == ["own=1"]


async def test_a_changed_role_and_a_disabled_user_are_noticed_at_the_recheck(tmp_path: Path):
    """The provider is asked again by refresh token; what it says then counts, for every copy of the cookie."""
    async with place(tmp_path, recheck_s=300, **DEVELOPMENT) as site:
        browser, copy = site.browser(), site.browser()
        await browser.sign_in()
        copy.cookies = dict(browser.cookies)
        users = tmp_path / "users.toml"
        users.write_text(users.read_text().replace('["support"]', '["supervisor", "support"]'), encoding="utf-8")
        assert (await browser.who())["user"]["roles"] == ["support"]
        site.clock.advance(301)
        assert (await browser.who())["user"]["roles"] == ["supervisor", "support"]
        assert (await copy.who())["user"]["roles"] == ["supervisor", "support"]
        users.write_text(users.read_text() + "disabled = true\n", encoding="utf-8")
        site.clock.advance(301)
        assert (await browser.who())["user"] is None
        assert (await copy.who())["user"] is None
        assert "__Host-session" not in browser.cookies


async def test_two_gateways_ask_the_provider_once(tmp_path: Path):
    """A refresh token is good once; the second gateway takes what the first was told instead of asking as well."""
    async with (
        place(tmp_path, recheck_s=300, **DEVELOPMENT) as one,
        place(tmp_path, clock=one.clock, recheck_s=300, **DEVELOPMENT) as other,
    ):
        browser, elsewhere = one.browser(), other.browser()
        await browser.sign_in()
        elsewhere.cookies = dict(browser.cookies)
        one.clock.advance(301)
        assert (await browser.who())["user"] is not None
        assert (await elsewhere.who())["user"] is not None
        one.clock.advance(301)
        assert (await elsewhere.who())["user"] is not None
        assert (await browser.who())["user"] is not None


# The way back.

RETURNS = [
    "https://evil.example/", "//evil.example", "/\\evil.example", "\\\\evil.example", "/\t/evil.example",
    "javascript:alert(1)", "/.seamline/sign-out", "%2F%2Fevil.example", "http:evil.example", "///evil",
    " //evil.example", "/\r\nset-cookie: a=b", "@evil.example", "/<script>", "a" * 3000,
]  # fmt: skip


@pytest.mark.parametrize("back", RETURNS)
async def test_nobody_is_sent_elsewhere_after_signing_in(tmp_path: Path, back: str):
    """A return address that is not a plain path of this origin is not used."""
    async with place(tmp_path, **DEVELOPMENT) as site:
        browser = site.browser()
        form = await browser.open(f"/.seamline/sign-in?return={quote(back, safe='')}")
        asked = {"ticket": ticket_of(form), "name": "ada", "password": "lovelace"}
        reply = await browser.ask("POST", "/.seamline/id/authorize", form=asked)
        reply = await browser.ask("GET", reply.header("location"))
        assert reply.status == 303
        assert reply.header("location") == "/"


@pytest.mark.parametrize("back", RETURNS)
async def test_nobody_is_sent_elsewhere_after_signing_out(tmp_path: Path, back: str):
    """Neither by our own form nor by the provider's end of session."""
    async with place(tmp_path, **DEVELOPMENT) as site:
        browser = site.browser()
        await browser.sign_in()
        reply = await browser.ask("POST", "/.seamline/sign-out", form={"return": back}, headers={"origin": site.origin})
        assert reply.header("location").startswith(f"{site.origin}/.seamline/id/end-session?")
        assert query_of(reply.header("location"))["post_logout_redirect_uri"].startswith(f"{site.origin}/")
        ended = await browser.ask("GET", f"/.seamline/id/end-session?{urlencode({'post_logout_redirect_uri': back})}")
        assert ended.header("location") == f"{site.origin}/"


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1", "localhost:1", "evil.example:{port}", "127.0.0.1:{port}@evil"]
)
async def test_a_host_that_is_not_ours_gets_no_sign_in(tmp_path: Path, host: str):
    """The host a request claims never becomes the address that codes are sent to."""
    async with place(tmp_path, **DEVELOPMENT) as site:
        pool = HttpPool("127.0.0.1", site.port, host_header=host.format(port=site.port))
        response = await pool.request("GET", "/.seamline/sign-in")
        assert response.status == (400 if "@" in host else 421)
        await pool.close()


async def test_localhost_and_its_number_are_both_ours_and_each_keeps_to_itself(tmp_path: Path):
    """A browser that came by a name stays at that name, where its cookies are."""
    async with place(tmp_path, **DEVELOPMENT) as site:
        browser = site.browser("localhost")
        page = await browser.sign_in(at="/members")
        assert page.json()["user"]["id"] == "ada"
        assert all(url.startswith(f"http://localhost:{site.port}/") for url in browser.seen)


# The provider's answer.


async def test_an_answer_for_another_browser_is_refused(tmp_path: Path):
    """Login CSRF: the answer to somebody else's sign-in signs nobody in here."""
    async with place(tmp_path, **DEVELOPMENT) as site:
        attacker, victim = site.browser(), site.browser()
        form = await attacker.open("/.seamline/sign-in")
        asked = {"ticket": ticket_of(form), "name": "ada", "password": "lovelace"}
        answer = await attacker.ask("POST", "/.seamline/id/authorize", form=asked)
        reply = await victim.ask("GET", answer.header("location"))
        assert reply.status == 400
        assert not victim.cookies
        await victim.open("/.seamline/sign-in")  # one of their own under way changes nothing
        assert (await victim.ask("GET", answer.header("location"))).status == 400
        assert "__Host-session" not in victim.cookies
        assert any("belongs to no sign-in of this browser" in reason for reason in site.audit.reasons())


async def test_an_answer_counts_once(tmp_path: Path):
    """The same callback again, with the same cookies, is refused."""
    async with place(tmp_path, **DEVELOPMENT) as site:
        browser = site.browser()
        form = await browser.open("/.seamline/sign-in")
        before = dict(browser.cookies)
        asked = {"ticket": ticket_of(form), "name": "ada", "password": "lovelace"}
        answer = await browser.ask("POST", "/.seamline/id/authorize", form=asked)
        assert (await browser.ask("GET", answer.header("location"))).status == 303
        browser.cookies = before
        assert (await browser.ask("GET", answer.header("location"))).status == 400


@pytest.mark.parametrize("change", ["state", "code", "iss", "no state", "no iss", "late", "error"])
async def test_a_changed_answer_is_refused(tmp_path: Path, change: str):
    """State, code and issuer each count; so does the time."""
    async with place(tmp_path, **DEVELOPMENT) as site:
        browser = site.browser()
        form = await browser.open("/.seamline/sign-in")
        asked = {"ticket": ticket_of(form), "name": "ada", "password": "lovelace"}
        answer = (await browser.ask("POST", "/.seamline/id/authorize", form=asked)).header("location")
        given = query_of(answer)
        if change.startswith("no "):
            del given[change[3:]]
        elif change == "late":
            site.clock.advance(700)
        elif change == "error":
            given["error"] = "access_denied"
        else:
            given[change] = given[change][:-3] + "xyz"
        reply = await browser.ask("GET", f"/.seamline/callback?{urlencode(given)}", headers={"accept": "text/html"})
        assert reply.status in (400, 403)
        assert "__Host-session" not in browser.cookies


# Cookies that a page of somebody else makes a browser send.


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example"},
        {"origin": "null"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "cross-site", "origin": "{origin}"},
        {"sec-fetch-site": "same-origin", "origin": "https://evil.example"},
        {"origin": "{origin}.evil.example"},
        {"origin": "https://127.0.0.1:{port}"},
        {"x-csrf-token": "guessed"},
        {"origin": "https://evil.example", "x-csrf-token": "{token}"},
        {},
    ],
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_a_request_that_another_site_made_is_not_carried_out(
    tmp_path: Path, headers: dict[str, str], method: str
):
    """With a session cookie, whatever changes something must come from one of our own pages."""
    async with place(tmp_path, **DEVELOPMENT) as site:
        browser = site.browser()
        await browser.sign_in()
        token = (await browser.ask("GET", "/.seamline/session")).json()["csrf_token"]
        told = {name: value.format(origin=site.origin, port=site.port, token=token) for name, value in headers.items()}
        reply = await browser.ask(method, "/who", headers=told)
        assert reply.status == 403
        assert any("came from elsewhere" in reason for reason in site.audit.reasons())


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "{origin}"},
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "same-origin", "origin": "null"},
        {"x-csrf-token": "{token}"},
    ],
)
async def test_our_own_pages_may(tmp_path: Path, headers: dict[str, str]):
    """By origin, by what the browser says, or by the token that only our origin can read."""
    async with place(tmp_path, **DEVELOPMENT) as site:
        browser = site.browser()
        await browser.sign_in()
        token = (await browser.ask("GET", "/.seamline/session")).json()["csrf_token"]
        told = {name: value.format(origin=site.origin, token=token) for name, value in headers.items()}
        reply = await browser.ask("POST", "/who", headers=told)
        assert reply.status == 200
        assert reply.json()["user"]["id"] == "ada"


async def test_a_websocket_of_another_site_is_not_opened_with_the_session(tmp_path: Path):
    """Cross-site WebSocket hijacking: the handshake is a GET, and counts as what changes something."""
    async with place(tmp_path, **DEVELOPMENT) as site:
        browser = site.browser()
        await browser.sign_in()
        hand = {
            "connection": "upgrade", "upgrade": "websocket", "sec-websocket-version": "13",
            "sec-websocket-key": "AAAAAAAAAAAAAAAAAAAAAA==",
        }  # fmt: skip
        refused = await browser.ask("GET", "/socket", headers={**hand, "origin": "https://evil.example"})
        assert refused.status == 403
        assert (await browser.ask("GET", "/socket", headers=hand)).status == 403


async def test_signing_out_is_not_done_for_another_site(tmp_path: Path):
    """Nor by a link: GET only asks."""
    async with place(tmp_path, **DEVELOPMENT) as site:
        browser = site.browser()
        await browser.sign_in()
        assert (
            await browser.ask("POST", "/.seamline/sign-out", form={}, headers={"origin": "https://evil"})
        ).status == 403
        await browser.open("/.seamline/sign-out")
        assert (await browser.who())["user"]["id"] == "ada"


async def test_who_is_told_to_be_let_in_no_more_is_not(tmp_path: Path):
    """A revocation that the gateway hears of holds for the next request."""
    revoked: set[str] = set()
    async with place(tmp_path, refuses=lambda user: "revoked" if user.id in revoked else None, **DEVELOPMENT) as site:
        browser = site.browser()
        await browser.sign_in()
        assert (await browser.who())["user"]["id"] == "ada"
        revoked.add("ada")
        assert (await browser.who())["user"] is None
