"""Bundles from an endpoint with a certificate of the web: who is let in by them, and what is not believed."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest
from bundle_web import WebAuthority, WebEndpoint
from cryptography import x509
from supervised_app import Up, until
from test_federation import OURS, POLICY, THEIRS, Neighbours

from seamline.kernel.settings import Settings
from seamline.mesh.identity import CertificateAuthority
from seamline.mesh.identity.federation import BUNDLE_BYTES_MAX, write_bundle
from seamline.run.federation import Federation

WAIT_S = 20.0


def section(url: str, authority: Path | None) -> str:
    named = f'authority = "{authority}"\n' if authority is not None else ""
    return f'[identity.federation."{THEIRS}"]\nurl = "{url}"\nmodules = ["other/names"]\n{named}'


class Web(Neighbours):
    """Ours, which follows the bundle of theirs; theirs is an authority and its endpoint."""

    def __init__(self, folder: Path) -> None:
        web = WebAuthority(folder)
        self.authority = CertificateAuthority.load_or_create(folder / "theirs", THEIRS, "other")
        self.endpoint = WebEndpoint(web.context(), write_bundle(self.authority.bundle_pem, 1, 1))
        self.ours = Up(folder, "python", section(self.endpoint.url, web.pem), policy=POLICY)


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    web = Web(tmp_path_factory.mktemp("web"))
    with web.endpoint, web.ours:
        yield web


def test_who_their_bundle_vouches_for_is_let_in(web: Web):
    """No bundle was given to begin with: it is the endpoint's."""
    until(lambda: web.kept() == 1)
    assert until(lambda: web.lets_in("names"))


def test_their_next_bundle_is_followed_and_an_older_one_is_not(web: Web, tmp_path: Path):
    """A new authority is let in once the endpoint tells of it, and stays in when it tells an older number."""
    old = web.authority
    assert until(lambda: web.lets_in("names"))
    web.authority = CertificateAuthority.load_or_create(tmp_path, THEIRS, "other")
    assert not web.lets_in("names")
    web.endpoint.body = write_bundle(web.authority.bundle_pem, 3, 1)
    assert until(lambda: web.lets_in("names"))
    web.endpoint.body = write_bundle(old.bundle_pem, 2, 1)
    until(lambda: "older than the one that is known" in web.ours.output)
    assert web.lets_in("names")
    web.authority = old
    assert not web.lets_in("names")


async def taken(folder: Path, url: str, authority: Path | None, caplog: pytest.LogCaptureFixture) -> tuple[bool, str]:
    """Whether anything of the endpoint's is used, and what the log says."""
    toml = '[app]\nname = "other"\nmodules = ["other.echo"]\n' + section(url, authority)
    (folder / "seamline.toml").write_text(toml)
    told = asyncio.Event()

    async def spread() -> None:
        told.set()

    class Heard(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            told.set()

    federation = Federation(Settings.load(folder, {}), folder / "identity", spread)
    heard = Heard(logging.WARNING)
    logging.getLogger("seamline.run").addHandler(heard)
    try:
        async with asyncio.timeout(WAIT_S), asyncio.TaskGroup() as tasks:
            running = tasks.create_task(federation.run(cast("Any", None)))
            await told.wait()
            running.cancel()
    finally:
        logging.getLogger("seamline.run").removeHandler(heard)
    kept = (folder / "identity" / "federation").exists()
    assert kept == bool(federation.bundles)
    return kept, caplog.text


def bundle_of(folder: Path, domain: str) -> bytes:
    return write_bundle(CertificateAuthority.load_or_create(folder / domain, domain, "other").bundle_pem, 1)


async def test_a_good_answer_is_taken(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """So that the refusals below are about what they say."""
    web = WebAuthority(tmp_path)
    with WebEndpoint(web.context(), bundle_of(tmp_path, THEIRS)) as endpoint:
        assert (await taken(tmp_path, endpoint.url, web.pem, caplog))[0]


def another_authority(web: WebAuthority, folder: Path) -> ssl.SSLContext:
    del web
    return WebAuthority(folder, "stranger").context()


def another_host(web: WebAuthority, folder: Path) -> ssl.SSLContext:
    del folder
    return web.context(x509.DNSName("bundles.b.example"))


@pytest.mark.parametrize("context", [another_authority, another_host])
async def test_an_endpoint_that_is_not_the_one_is_not_asked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, context: Any
):
    """A certificate of an authority that is not the named one, or of another host: no request is made."""
    web = WebAuthority(tmp_path)
    with WebEndpoint(context(web, tmp_path), bundle_of(tmp_path, THEIRS)) as endpoint:
        kept, said = await taken(tmp_path, endpoint.url, web.pem, caplog)
    assert (kept, endpoint.asked) == (False, 0)
    assert "certificate verify failed" in said


async def test_the_authorities_of_the_machine_know_no_stranger(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    """Without `authority` they are asked."""
    web = WebAuthority(tmp_path)
    with WebEndpoint(web.context(), bundle_of(tmp_path, THEIRS)) as endpoint:
        kept, said = await taken(tmp_path, endpoint.url, None, caplog)
    assert (kept, endpoint.asked) == (False, 0)
    assert "certificate verify failed" in said


@pytest.mark.parametrize(
    ("status", "headers", "body", "why"),
    [
        (200, {}, OURS, "that of"),
        (200, {}, b"<html>", "cannot be read"),
        (200, {}, b" " * (BUNDLE_BYTES_MAX + 1), "larger than"),
        (404, {}, THEIRS, "status 404"),
        (302, {"location": "https://127.0.0.1:1/"}, THEIRS, "status 302"),
    ],
)
async def test_an_answer_that_is_no_bundle_of_theirs_is_not_used(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, status: int, headers: dict[str, str], body: str | bytes, why: str
):
    """Whoever it comes from; nothing is followed elsewhere."""
    web = WebAuthority(tmp_path)
    data = body if isinstance(body, bytes) else bundle_of(tmp_path, body)
    with WebEndpoint(web.context(), data, status, **headers) as endpoint:
        kept, said = await taken(tmp_path, endpoint.url, web.pem, caplog)
    assert not kept
    assert endpoint.asked == 1
    assert why in said
