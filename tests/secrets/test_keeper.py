"""Who gets a secret, from where, for how long, and what is written down of it."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest
from rig import Far, Rig, settings_of

from seamline.kernel.settings.secrets import for_workers
from seamline.module import InvalidArgument, PermissionDenied
from seamline.secrets.errors import (
    BackendDownError,
    BadSecretError,
    LeaseEndedError,
    RotationError,
    SecretsError,
    UnknownSecretError,
)

CANARY = b"canary-31c9"


async def test_only_whom_policy_names_gets_it_and_each_reading_is_a_line(tmp_path: Path):
    """The refusal names the permit; the refused cannot tell a secret that is there from one that is not."""
    rig = Rig(tmp_path)
    await rig.keeper.set("me", "stripe-key", CANARY)
    pay, spy = rig.secrets("pay", "stripe-key"), rig.secrets("spy")
    assert (await pay.get("stripe-key")).reveal_bytes() == CANARY
    refusals: list[str] = []
    for name in ("stripe-key", "no-such-key"):
        with pytest.raises(PermissionDenied) as raised:
            await spy.get(name)
        refusals.append(str(raised.value).replace(name, "..."))
    assert refusals[0] == refusals[1]
    for attempt in (spy.valid("stripe-key"), spy.take("stripe-key", 5), spy.plan("stripe-key", 1)):
        with pytest.raises(PermissionDenied):
            await attempt
    told = [(line["decision"], line["principal"], line["action"]) for line in rig.lines]
    assert told == [("allow", "me", "set"), ("allow", "pay", "secret"), *[("deny", "spy", "secret")] * 4,
                    ("deny", "spy", "rotate")]  # fmt: skip
    assert CANARY.decode() not in str(rig.lines)


async def test_reading_does_not_permit_writing(tmp_path: Path):
    """Who may read a secret cannot set its next value."""
    rig = Rig(tmp_path)
    await rig.keeper.set("me", "key", b"first")
    pay = rig.secrets("pay", "key")
    current = await pay.get("key")
    with pytest.raises(PermissionDenied):
        await pay.replace(current, b"mine", 0)
    assert (await rig.keeper.reveal("me", "key")).reveal() == "first"


async def test_a_first_value_is_made_once(tmp_path: Path):
    """Two processes that find none at once go on with the same one; a value that is set is left alone."""
    rig = Rig(tmp_path)
    one, other = rig.secrets("pay", "key", rotate=True), rig.secrets("pay", "key", rotate=True)
    found = await asyncio.gather(one.get_or_make("key", lambda: "first"), other.get_or_make("key", lambda: "second"))
    assert found[0].reveal() == found[1].reveal() in ("first", "second")
    assert found[0].version == found[1].version == "1"
    await rig.keeper.set("me", "key", b"mine")
    assert (await one.get_or_make("key", lambda: "third")).reveal() == "mine"


async def test_who_only_reads_makes_no_first_value(tmp_path: Path):
    """A first value needs the permit to rotate; without it there is none afterwards."""
    rig = Rig(tmp_path)
    with pytest.raises(PermissionDenied):
        await rig.secrets("pay", "key").get_or_make("key", lambda: "first")
    with pytest.raises(UnknownSecretError):
        await rig.keeper.reveal("me", "key")


@pytest.mark.parametrize("name", ["", "A", "../key", "a//b", "a/", "-a", "a b", "a\n", "a..b", "x" * 128, "Secret::x"])
async def test_a_name_that_leads_elsewhere_is_refused(tmp_path: Path, name: str):
    """Before it reaches the policy or a backend's path."""
    rig = Rig(tmp_path)
    with pytest.raises(BadSecretError, match="SL4607"):
        await rig.keeper.get("pay", name)
    with pytest.raises(BadSecretError):
        await rig.keeper.set("me", name, b"x")


async def test_a_malformed_question_is_refused(tmp_path: Path):
    """A worker that speaks nonsense gets an answer and nothing else."""
    rig = Rig(tmp_path)
    for operation, arguments in (("reveal", {"name": "key"}), ("get", {}), ("get", {"name": "a", "who": "me"})):
        with pytest.raises(InvalidArgument):
            await rig.keeper.answer("pay", operation, arguments)


async def test_values_that_are_none_are_refused_without_being_told(tmp_path: Path):
    """Empty, or as big as a data set."""
    rig = Rig(tmp_path)
    for value in (b"", b"canary" * 20_000):
        with pytest.raises(BadSecretError) as raised:
            await rig.keeper.set("me", "key", value)
        assert "canary" not in str(raised.value)


async def test_a_new_value_reaches_who_has_asked_before(tmp_path: Path):
    """At once, and not when what is remembered has grown old."""
    rig = Rig(tmp_path)
    await rig.keeper.set("me", "key", b"one")
    pay = rig.secrets("pay", "key")
    assert (await pay.get("key")).reveal() == "one"
    await rig.keeper.set("me", "key", b"two")
    assert (await pay.get("key")).reveal() == "two"
    assert [each.reveal() for each in await pay.valid("key")] == ["two", "one"]
    await rig.keeper.delete("me", "key")
    with pytest.raises(UnknownSecretError):
        await pay.get("key")


async def test_what_is_asked_again_and_again_is_asked_of_the_keeper_once(tmp_path: Path):
    """A hundred at once make one question, and so does whoever asks within the time that is remembered."""
    rig = Rig(tmp_path)
    await rig.keeper.set("me", "key", b"one")
    pay = rig.secrets("pay", "key")
    await asyncio.gather(*(pay.get("key") for _ in range(100)))
    rig.clock.advance(299)
    await pay.get("key")
    assert len(rig.lines) == 2
    rig.clock.advance(2)
    await pay.get("key")
    assert len(rig.lines) == 3


async def test_watching_tells_of_each_new_version(tmp_path: Path):
    """The one that is, then each that takes its place, and none twice."""
    rig = Rig(tmp_path)
    await rig.keeper.set("me", "key", b"0")
    pay = rig.secrets("pay", "key")
    seen: list[str] = []
    async for secret in pay.watch("key"):
        seen.append(secret.reveal())
        pay.changed("key")  # a change of something else
        if len(seen) == 4:
            break
        await rig.keeper.set("me", "key", str(len(seen)).encode())
    assert seen == ["0", "1", "2", "3"]


async def test_a_lease_keeps_its_version_valid(tmp_path: Path):
    """Longer than the overlap, if it was taken for longer; then it has ended and says so."""
    rig = Rig(tmp_path, settings=replace(settings_of(tmp_path).secrets, overlap_s=10, lease_s=100))
    await rig.keeper.set("me", "key", b"one")
    pay = rig.secrets("pay", "key")
    async with pay.lease("key", seconds=1000) as lease:
        await rig.keeper.set("me", "key", b"two")
        rig.clock.advance(99)
        assert (lease.secret.reveal(), (await pay.get("key", version="1")).reveal()) == ("one", "one")
        await lease.renew()
        assert lease.ends_ms == pay.now_ms() + 1000, "no longer than its version is valid"
        rig.clock.advance(2)
        with pytest.raises(LeaseEndedError):
            _ = lease.secret
        with pytest.raises(LeaseEndedError):
            await lease.renew()
    with pytest.raises(UnknownSecretError):
        await pay.get("key", version="1")


async def test_a_lease_is_its_holders_alone(tmp_path: Path):
    """Another module can neither renew nor end it, and it is gone when the block is left."""
    rig = Rig(tmp_path)
    await rig.keeper.set("me", "key", b"one")
    pay, spy = rig.secrets("pay", "key"), rig.secrets("spy", "key")
    async with pay.lease("key") as lease:
        with pytest.raises(LeaseEndedError):
            await spy.renew(lease.id, 5)
        await spy.give_back(lease.id)
        await lease.renew()
        assert len((await rig.keeper.facts())[0]["leases"]) == 1
    assert (await rig.keeper.facts())[0]["leases"] == []
    with pytest.raises(LeaseEndedError):
        _ = lease.secret


async def test_what_is_due_is_told_when_its_time_has_come(tmp_path: Path):
    """By the age of the newest version; a rotation that somebody else has done is not done twice."""
    rig = Rig(tmp_path)
    await rig.keeper.set("me", "key", b"one")
    pay = rig.secrets("pay", "key", rotate=True)
    await pay.plan("key", 100)
    assert await rig.keeper.due() == []
    rig.clock.advance(100)
    assert [(plan.module, plan.name) for plan in await rig.keeper.due()] == [("pay", "key")]
    current = await pay.get("key")
    await pay.replace(current, b"two", 50)
    with pytest.raises(RotationError, match="faster"):
        await pay.replace(current, b"three", 50)
    assert await rig.keeper.due() == []
    rig.clock.advance(51)
    await rig.keeper.due()
    assert [each["gone"] for each in (await rig.keeper.facts())[0]["versions"]] == [False, True]


async def test_a_backend_of_others_is_asked_as_seldom_as_the_settings_say(tmp_path: Path):
    """And what was read is given on while it is down, for a stated time, after which nobody pretends."""
    far = Far()
    rig = Rig(tmp_path, far, replace(settings_of(tmp_path).secrets, cache_s=10, stale_s=100))
    far.values["key"] = ("a", CANARY)
    pay = rig.secrets("pay", "key")
    for _ in range(5):
        assert (await pay.get("key")).version == "a"
    assert far.reads == 1
    far.down = True
    rig.clock.advance(11)
    assert (await pay.get("key")).version == "a"
    assert far.reads == 2
    rig.clock.advance(100)
    with pytest.raises(BackendDownError, match="SL4605"):
        await pay.get("key")
    far.down = False
    far.values["key"] = ("b", b"other")
    assert (await pay.get("key")).reveal() == "other"


async def test_what_is_gone_from_a_backend_is_not_given_on(tmp_path: Path):
    """Gone is an answer: only silence lets an old value live."""
    far = Far()
    rig = Rig(tmp_path, far, replace(settings_of(tmp_path).secrets, cache_s=10, stale_s=100))
    far.values["key"] = ("a", CANARY)
    pay = rig.secrets("pay", "key")
    await pay.get("key")
    far.values.clear()
    rig.clock.advance(11)
    with pytest.raises(UnknownSecretError):
        await pay.get("key")
    far.down = True
    with pytest.raises(BackendDownError):
        await pay.get("key")


async def test_a_change_while_an_answer_travels_is_not_lost(tmp_path: Path):
    """The value read before the change is not remembered after it."""
    far = Far()
    rig = Rig(tmp_path, far, replace(settings_of(tmp_path).secrets, cache_s=0))
    far.values["key"] = ("a", b"one")
    pay = rig.secrets("pay", "key")
    far.meanwhile = lambda: pay.changed("key")
    await pay.get("key")
    far.meanwhile = lambda: None
    await pay.get("key")
    assert far.reads == 2


async def test_lines_are_cleared_of_values_that_were_given_out(tmp_path: Path):
    """Also of a key of many lines, which a traceback would print line by line; short values would blank the log."""
    rig = Rig(tmp_path)
    pem = "-----BEGIN KEY-----\nMIGHAgEAMBMGByqGSM49\nAwEHBG0wawIBAQQg\n-----END KEY-----"
    for name, value in (("key", CANARY), ("pem", pem.encode()), ("pin", b"1234")):
        await rig.keeper.set("me", name, value)
    pay = rig.secrets("pay", "key", "pem", "pin")
    assert rig.keeper.hide("before anybody asked: canary-31c9") == "before anybody asked: canary-31c9"
    for name in ("key", "pem", "pin"):
        await pay.get(name)
    assert rig.keeper.hide("it was canary-31c9!") == "it was [secret]!"
    assert "AwEHBG0wawIBAQQg" not in rig.keeper.hide("line 3: AwEHBG0wawIBAQQg")
    assert rig.keeper.hide("at 12:34 1234") == "at 12:34 1234"


async def test_logins_are_refused_where_nobody_asked_for_them(tmp_path: Path):
    """A worker cannot have the keeper make a login that the settings do not want."""
    rig = Rig(tmp_path)
    with pytest.raises(SecretsError, match="dynamic"):
        await rig.keeper.answer("pay", "login", {})


async def test_leases_do_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A module that takes and takes is told to give back; those that ended make room."""
    monkeypatch.setattr("seamline.secrets.keeper._LEASES_MAX", 3)
    rig = Rig(tmp_path)
    await rig.keeper.set("me", "key", b"one")
    pay = rig.secrets("pay", "key")
    for _ in range(3):
        await pay.take("key", 10)
    with pytest.raises(SecretsError, match="leases"):
        await pay.take("key", 10)
    rig.clock.advance(11)
    await pay.take("key", 10)


def test_workers_get_no_variable_that_is_the_supervisors():
    """Neither keys nor tokens; the databases' urls only where logins are static."""
    mine = {"SEAMLINE_SECRETS_MASTER_KEY": "a", "SEAMLINE_SECRETS_TOKEN": "b", "SEAMLINE_IDENTITY_PASSPHRASE": "c"}
    urls = {"SEAMLINE_DATA_URL": "d", "SEAMLINE_DATA_MODULES_PAY_URL": "e"}
    rest = {"PATH": "/bin", "SEAMLINE_DATA_CREDENTIALS": "dynamic", "SEAMLINE_SECRETS_BACKEND": "file"}
    assert for_workers({**mine, **urls, **rest}, dynamic_credentials=True) == rest
    assert for_workers({**mine, **urls, **rest}, dynamic_credentials=False) == {**urls, **rest}
