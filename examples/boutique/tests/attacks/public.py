"""Attacks on the public port: requests that can be read in two ways, that claim what they are not, or never end."""

# ruff: noqa: INP001  # a folder of tests, not a package

from __future__ import annotations

import asyncio
import json

from examples.boutique.tests.attacks.target import Target, attack

_CARRIED = b"GET /desk/ HTTP/1.1\r\nhost: x\r\n\r\n"


async def answered(t: Target, head: str, body: bytes, *statuses: int) -> None:
    """One answer with one of these statuses, and the connection ends: nothing behind it is taken for a request."""
    answer = await t.raw(head.replace("HOST", f"{t.host}:{t.port}").encode("latin-1") + body)
    status = answer.split(b" ", 2)[1:2]
    assert status in [[str(each).encode()] for each in statuses], answer
    assert answer.count(b"HTTP/1.1 ") == 1, answer


# Request smuggling.


@attack("Duplicate Content-Length")
async def two_lengths(t: Target) -> None:
    head = "POST /cart HTTP/1.1\r\nhost: HOST\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n"
    await answered(t, head, b"abcde" + _CARRIED, 400)


@attack("can't be present with Content-Length")
async def a_length_and_chunks(t: Target) -> None:
    head = "POST /cart HTTP/1.1\r\nhost: HOST\r\ncontent-length: 4\r\ntransfer-encoding: chunked\r\n\r\n"
    await answered(t, head, b"0\r\n\r\n" + _CARRIED, 400)


@attack("the only transfer-encoding known is chunked")
async def a_transfer_encoding_in_disguise(t: Target) -> None:
    for value in ("xchunked", "chunked, identity", "identity", "chunked\x0b"):
        head = f"POST /cart HTTP/1.1\r\nhost: HOST\r\ntransfer-encoding: {value}\r\n\r\n"
        await answered(t, head, b"0\r\n\r\n" + _CARRIED, 400, 501)


@attack("Invalid header field char")
async def a_space_before_the_colon(t: Target) -> None:
    head = "POST /cart HTTP/1.1\r\nhost: HOST\r\ntransfer-encoding : chunked\r\ncontent-length: 5\r\n\r\n"
    await answered(t, head, b"0\r\n\r\n" + _CARRIED, 400)


@attack("Invalid character in chunk size")
async def a_chunk_of_no_size(t: Target) -> None:
    head = "POST /cart HTTP/1.1\r\nhost: HOST\r\ntransfer-encoding: chunked\r\n\r\n"
    for body in (b"-1\r\n", b"0x5\r\nabcde\r\n0\r\n\r\n", b"ffffffffffffffffff\r\n"):
        await answered(t, head, body + _CARRIED, 400, 413)


@attack("Invalid character in Content-Length")
async def a_length_that_is_no_number(t: Target) -> None:
    for value in ("+5", "-1", "5,5", "0x5", "99999999999999999999999"):
        head = f"POST /cart HTTP/1.1\r\nhost: HOST\r\ncontent-length: {value}\r\n\r\n"
        await answered(t, head, b"abcde" + _CARRIED, 400, 413)


# Headers.


@attack("Missing expected LF after header value")
async def bytes_that_end_a_header(t: Target) -> None:
    for value in ("a\rb", "a\nb: c", "a\0b"):
        head = f"GET / HTTP/1.1\r\nhost: HOST\r\nx-note: {value}\r\n\r\n"
        answer = await t.raw(head.replace("HOST", f"{t.host}:{t.port}").encode())
        assert b"\nb: c" not in answer
        if "\n" not in value:  # a bare line feed ends a line for some parsers; then the second is a header of its own
            assert answer.startswith(b"HTTP/1.1 400 "), answer


@attack("The path")
async def what_only_a_gateway_may_say(t: Target) -> None:
    """Claims about the client and the user do not reach a module; and a path with a line feed is refused."""
    status, _, body = await t.get(
        "/mallory/headers", x_forwarded_for="10.0.0.1", x_forwarded_host="evil.example", forwarded="for=10.0.0.1",
        x_real_ip="10.0.0.1", seamline_subject="cleo", connection="close",
    )  # fmt: skip
    told = json.loads(body)
    assert status == 200
    assert told["client"] == "127.0.0.1"
    assert told["user"] is None
    assert "10.0.0.1" not in str(told["headers"])
    assert "evil.example" not in str(told["headers"])
    assert "seamline-subject" not in told["headers"]
    head = "GET /mallory/%0d%0aset-cookie:a=b/../ HTTP/1.1\r\nhost: HOST\r\n\r\n"
    answer = await t.raw(head.replace("HOST", f"{t.host}:{t.port}").encode())
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"a=b" not in answer.partition(b"\r\n\r\n")[0]
    await answered(t, "GET /cart//../desk/ HTTP/1.1\r\nhost: HOST\r\nconnection: close\r\n\r\n", b"", 400)


# Paths.


@attack("The path")
async def traversal_to_a_file(t: Target) -> None:
    for path in (
        "/static/../../users.toml", "/static/..%2f..%2fusers.toml", "/static/%2e%2e/%2e%2e/users.toml",
        "/static/....//users.toml", "/static/..\\..\\users.toml", "/static/%5c..%5cusers.toml", "/static/%00users.toml",
        "/static/..;/users.toml", "/static/%c0%ae%c0%ae/users.toml",
    ):  # fmt: skip
        answer = await t.raw(f"GET {path} HTTP/1.1\r\nhost: {t.host}:{t.port}\r\nconnection: close\r\n\r\n".encode())
        assert answer.split(b" ", 2)[1] in (b"400", b"404"), (path, answer)
        assert b"scrypt$" not in answer


@attack("The path")
async def ways_around_the_desks_policy(t: Target) -> None:
    """No spelling of its path reaches the desk as if it were another module's."""
    for path in (
        "/cart/../desk/", "/./desk/", "//desk/", "/%64esk/../desk/", "/desk%2f", "/x/..;/desk/", "/desk/.", "/%2fdesk/",
    ):  # fmt: skip
        answer = await t.raw(f"GET {path} HTTP/1.1\r\nhost: {t.host}:{t.port}\r\nconnection: close\r\n\r\n".encode())
        assert answer.split(b" ", 2)[1] in (b"400", b"401", b"404"), (path, answer)


@attack("while nobody is signed in")
async def the_desk_by_an_escape(t: Target) -> None:
    """``%64`` is a plain letter: the same page, under the same policy."""
    status, _, _ = await t.get("/%64esk/")
    assert status == 401


# Hosts.


@attack("This address is not known here")
async def another_host(t: Target) -> None:
    """DNS rebinding: a stranger's name leads here."""
    await answered(t, "GET / HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n", b"", 421)
    await answered(t, "GET http://evil.example/ HTTP/1.1\r\nhost: HOST\r\nconnection: close\r\n\r\n", b"", 400, 421)


@attack("host")
async def no_host_or_two(t: Target) -> None:
    for lines in ("", "host: HOST\r\nhost: evil.example\r\n", "host: HOST, evil.example\r\n", "host: a b\r\n"):
        await answered(t, f"GET / HTTP/1.1\r\n{lines}connection: close\r\n\r\n", b"", 400)


@attack("not known here")
async def a_sign_in_for_another_host(t: Target) -> None:
    """Links that lead to whoever claims the host."""
    await answered(t, "GET /.seamline/sign-in HTTP/1.1\r\nhost: evil.example\r\nconnection: close\r\n\r\n", b"", 421)


# Too much, too slow.


@attack("the head is limited to")
async def a_head_without_end(t: Target) -> None:
    lines = "".join(f"x-{number}: {'y' * 500}\r\n" for number in range(60))
    await answered(t, f"GET / HTTP/1.1\r\nhost: HOST\r\n{lines}\r\n", b"", 431)


@attack("the body is larger than")
async def a_body_without_end(t: Target) -> None:
    head = "POST /cart HTTP/1.1\r\nhost: HOST\r\ncontent-length: 999999999\r\n\r\n"
    await answered(t, head, b"x" * 1000, 413)


@attack("the head came too slowly")
async def slowloris(t: Target) -> None:
    """Forty heads that never end are all cut off."""

    async def drip() -> bytes:
        reader, writer = await asyncio.open_connection(t.host, t.port)
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n")
        async with asyncio.timeout(8):
            answer = await reader.read()
        writer.transport.abort()
        return answer

    answers = await asyncio.gather(*(drip() for _ in range(40)))
    assert all(each.startswith(b"HTTP/1.1 408 ") for each in answers)
