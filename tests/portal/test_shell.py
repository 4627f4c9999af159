"""The shell: signing in, going from page to page, keys, themes, and what is kept from strangers."""

from __future__ import annotations

import gzip

import pytest
from playwright.async_api import Browser, ViewportSize, expect
from tests.portal.conftest import PHONE, WIDE, accessible, fits, looking, needs_chromium, settled
from tests.portal.front import Front

from seamline.portal.app import found_pages


async def test_strangers_get_the_shell_and_nothing_in_it(front: Front):
    """Every address gives the same bytes without a session, and they hold nothing of the application."""
    texts = {(await front.send(path)).text for path in ("/", "/topology", "/modules/payments", "/traces", "/nowhere")}
    (shell,) = texts
    assert not any(word in shell for word in ("shop", "trio", "payments", "checkout"))
    for path in ("/", "/modules/payments", "/live/overview", "/topology/panel?node=m:payments"):
        assert (await front.send(path, hx_request="true")).status == 401
    assert (await front.send("/topology/switch", "POST", "topology=monolith")).status == 401
    assert front.admin.asked == []


async def test_a_forged_caller_is_not_believed(front: Front):
    """The headers in which the control API names the caller cannot be sent by the caller."""
    reply = await front.send("/", hx_request="true", x_seamline_caller="session 1", x_seamline_role="admin")
    assert reply.status == 401


async def test_every_answer_keeps_its_pages_to_itself(front: Front):
    """No inline script or style, no frame, nothing from elsewhere: also where something is missing."""
    for path in ("/", "/assets/none/portal.js"):
        headers = (await front.send(path)).headers
        assert headers["content-security-policy"].startswith("default-src 'self';")
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
    shell = (await front.send("/")).text
    assert "<style" not in shell
    assert "style=" not in shell
    assert shell.count("<script") == shell.count("<script src=")


async def test_assets_are_kept_for_ever_and_packed(front: Front):
    """Their address has the digest of their content; another digest finds nothing, nor does a way out."""
    shell = (await front.send("/")).text
    script = next(part for part in shell.split('"') if part.endswith("/portal.js"))
    reply = await front.send(script, accept_encoding="gzip")
    assert gzip.decompress(reply.body) == (await front.send(script)).body
    assert reply.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert reply.headers["content-type"] == "text/javascript; charset=utf-8"
    assert (await front.send("/assets/0123456789abcdef/portal.js")).status == 404
    for way in ("../app.py", "%2e%2e/app.py", "..%2fapp.py"):
        assert (await front.send(script.replace("portal.js", way))).status == 404


def test_every_page_has_its_own_key_and_place():
    """No two pages share a path, or a letter behind g."""
    pages = found_pages()
    assert len({each.path for each in pages}) == len({each.key for each in pages}) == len(pages)
    assert [each.path for each in pages][:3] == ["/", "/topology", "/modules"]


@pytest.mark.usefixtures("front")
class TestInABrowser:
    pytestmark = needs_chromium

    async def test_a_token_in_the_address_signs_in_and_leaves_it(self, front: Front, browser: Browser):
        """The fragment is gone from the address bar and the history, and the page is there."""
        async with looking(browser) as (page, complaints):
            await page.goto(front.address("/topology"))
            await settled(page)
            assert page.url == f"{front.url}/topology"
            await expect(page.locator("#sl-status")).to_contain_text("trio")
            await page.reload()
            await settled(page)
            assert await page.locator("h1").inner_text() == "Topology"
            assert complaints == []

    async def test_a_wrong_token_is_told_and_the_next_one_taken(self, front: Front, browser: Browser):
        """The whole address that the command prints is as good as the token in it."""
        async with looking(browser) as (page, _):
            await page.goto(front.url + "/modules")
            await page.get_by_label("Token").fill("sla_wrong")
            await page.get_by_role("button", name="Sign in").click()
            await expect(page.get_by_role("alert")).to_contain_text("the token is wrong")
            await page.get_by_label("Token").fill(front.address())
            await page.get_by_role("button", name="Sign in").click()
            await expect(page.locator("h1")).to_have_text("Modules")

    async def test_a_session_that_ended_leads_to_signing_in(self, front: Front, browser: Browser):
        """Also in the middle of an action; nothing of the pages stays in sight."""
        async with looking(browser) as (page, _):
            await page.goto(front.address("/topology"))
            await settled(page)
            front.refuses = True
            await page.get_by_role("link", name="Modules").click()
            await expect(page.locator("h1")).to_have_text("Sign in")
            assert "trio" not in await page.locator("body").inner_text()

    async def test_signing_out_forgets(self, front: Front, browser: Browser):
        """The word that makes the cookie count is gone from the browser."""
        async with looking(browser) as (page, _):
            await page.goto(front.address())
            await settled(page)
            await page.get_by_role("button", name="Sign out").click()
            await expect(page.locator("h1")).to_have_text("Sign in")
            assert await page.evaluate("localStorage.getItem('seamline.session')") is None

    async def test_keys_lead_everywhere(self, front: Front, browser: Browser):
        """g t, g m, g o; ? shows them; / finds the search; Escape closes."""
        async with looking(browser) as (page, complaints):
            await page.goto(front.address())
            await settled(page)
            for key, title in (("t", "Topology"), ("m", "Modules"), ("l", "Logs"), ("o", "Overview")):
                await page.keyboard.press("g")
                await page.keyboard.press(key)
                await expect(page.locator("h1")).to_have_text(title)
                assert await page.evaluate("document.activeElement.tagName") == "H1"
            await page.keyboard.press("?")
            await expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
            assert await accessible(page) == []
            await page.keyboard.press("Escape")
            await expect(page.get_by_role("dialog", name="Keys")).to_be_hidden()
            await page.goto(front.url + "/logs")
            await settled(page)
            await page.keyboard.press("/")
            assert await page.evaluate("document.activeElement.tagName") == "INPUT"
            assert complaints == []

    async def test_the_first_tab_leads_to_the_content(self, front: Front, browser: Browser):
        """Who does not see the navigation skips it."""
        async with looking(browser) as (page, _):
            await page.goto(front.address())
            await settled(page)
            await page.keyboard.press("Tab")
            await expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
            await page.keyboard.press("Enter")
            assert await page.evaluate("document.activeElement.id") == "content"

    async def test_back_and_forward_show_what_was(self, front: Front, browser: Browser):
        """Every view has its address."""
        async with looking(browser) as (page, _):
            await page.goto(front.address("/modules"))
            await settled(page)
            await page.locator("main").get_by_role("link", name="checkout").first.click()
            await expect(page.locator("h1")).to_have_text("checkout")
            await page.go_back()
            await expect(page.locator("h1")).to_have_text("Modules")
            await page.go_forward()
            await expect(page.locator("h1")).to_have_text("checkout")
            assert page.url.endswith("/modules/checkout")

    async def test_dark_is_kept(self, front: Front, browser: Browser):
        """The switch outlives a reload, and sets the ground's colour before anything is drawn."""
        async with looking(browser) as (page, _):
            await page.goto(front.address())
            await settled(page)
            ground = "getComputedStyle(document.documentElement).backgroundColor"
            light = await page.evaluate(ground)
            await page.get_by_role("button", name="Dark or light").click()
            dark = await page.evaluate(ground)
            assert light != dark
            await page.reload()
            assert await page.evaluate(ground) == dark

    async def test_on_a_phone_the_menu_is_a_drawer(self, front: Front, browser: Browser):
        """Closed it cannot be reached; open it takes the focus, and gives it back."""
        async with looking(browser, PHONE) as (page, complaints):
            await page.goto(front.address())
            await settled(page)
            link = page.locator("#sl-nav").get_by_role("link", name="Topology")
            await expect(link).to_be_hidden()
            await page.get_by_role("button", name="Menu").click()
            await expect(link).to_be_visible()
            assert await page.evaluate("document.activeElement.closest('#sl-nav') !== null")
            await page.keyboard.press("Escape")
            await expect(link).to_be_hidden()
            await page.get_by_role("button", name="Menu").click()
            await link.click()
            await expect(page.locator("h1")).to_have_text("Topology")
            await expect(link).to_be_hidden()
            assert complaints == []

    async def test_the_line_is_found_again(self, front: Front, browser: Browser):
        """When what is live breaks off, the page says so, and goes on when it can."""
        async with looking(browser) as (page, _):
            await page.goto(front.address())
            await settled(page)
            await expect(page.locator("#sl-status")).to_contain_text("trio")
            await page.context.set_offline(True)
            front.cut()
            await expect(page.locator("#sl-line")).to_be_visible()
            front.admin.topology = "monolith"
            await page.context.set_offline(False)
            await expect(page.locator("#sl-line")).to_be_hidden(timeout=15_000)
            await expect(page.locator("#sl-status")).to_contain_text("monolith")

    @pytest.mark.parametrize("scheme", ["light", "dark"])
    @pytest.mark.parametrize("viewport", [WIDE, PHONE], ids=["wide", "phone"])
    async def test_signing_in_is_for_everybody(
        self, front: Front, browser: Browser, viewport: ViewportSize, scheme: str
    ):
        """axe finds nothing serious where everybody begins."""
        async with looking(browser, viewport, scheme) as (page, complaints):
            await page.goto(front.url)
            await expect(page.locator("h1")).to_have_text("Sign in")
            assert await accessible(page) == []
            assert await fits(page)
            assert complaints == []
