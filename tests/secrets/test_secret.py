"""A Secret does not show itself, whatever is done to it short of asking."""

from __future__ import annotations

import asyncio
import copy
import dataclasses
import io
import json
import logging
import pickle  # noqa: TID251  # it is what is attacked
import pprint
import traceback
from collections.abc import Callable
from typing import Any, cast

import msgspec
import pydantic
import pytest

from seamline.kernel.codec import UnsupportedTypeError, codec
from seamline.kernel.signal.log import JsonLines
from seamline.secrets import Secret
from seamline.secrets.errors import BadSecretError, SecretShownError

VALUE = "sk_live_canary_5f7a"


def secret() -> Secret:
    return Secret("stripe-key", "3", VALUE.encode())


@dataclasses.dataclass
class Holder:
    """What code keeps a secret in."""

    key: Secret


TEXTS: list[Callable[[Secret], str]] = [
    str,
    repr,
    ascii,
    lambda found: f"{found}",
    lambda found: f"{found:>40}",
    lambda found: "%s %r" % (found, found),  # noqa: UP031  # an old way that logs use
    lambda found: str([found]) + str({"key": found}) + str((found,)),
    lambda found: pprint.pformat({"key": found}),
    lambda found: repr(Holder(found)),
    lambda found: repr(dataclasses.asdict(Holder(found))),
    lambda found: json.dumps({"key": found}, default=str),
    lambda found: json.dumps(dir(found)),
    lambda found: msgspec.json.encode({"key": found}, enc_hook=repr).decode(),
    lambda found: repr(copy.deepcopy([found])),
]


@pytest.mark.parametrize("show", TEXTS, ids=lambda show: str(TEXTS.index(show)))
def test_every_text_of_it_names_it_and_hides_the_value(show: Callable[[Secret], str]):
    """In any formatting, inside of containers and dataclasses, by any hook that makes text of it."""
    text = show(secret())
    assert VALUE not in text
    assert VALUE[8:] not in text


def refusals() -> list[tuple[str, Callable[[Secret], Any], type[Exception]]]:
    class Model(pydantic.BaseModel):
        key: Any

    return [
        ("json", json.dumps, TypeError),
        ("msgspec", msgspec.json.encode, TypeError),
        ("msgpack", msgspec.msgpack.encode, TypeError),
        ("builtins", msgspec.to_builtins, TypeError),
        ("pickle", pickle.dumps, SecretShownError),
        ("old pickle", lambda found: pickle.dumps(found, 0), SecretShownError),
        ("pydantic value", lambda found: Model(key=found).model_dump_json(), ValueError),
        ("vars", vars, TypeError),
        ("hash", hash, TypeError),
        ("set", lambda found: setattr(found, "name", "x"), AttributeError),
        ("bytes", lambda found: bytes(cast("Any", found)), TypeError),
        ("len", lambda found: len(cast("Any", found)), TypeError),
        ("iterate", lambda found: list(cast("Any", found)), TypeError),
    ]


@pytest.mark.parametrize(("attack", "refusal"), [pytest.param(a, r, id=n) for n, a, r in refusals()])
def test_what_would_write_it_down_is_refused(attack: Callable[[Secret], Any], refusal: type[Exception]):
    """And the refusal does not hold the value either."""
    with pytest.raises(refusal) as raised:
        attack(secret())
    assert VALUE not in "".join(traceback.format_exception(raised.value))


def test_no_model_and_no_contract_has_a_field_for_it():
    """The mistake is found when the type is made, not when the value leaves."""
    with pytest.raises(SecretShownError, match="SL4610"):
        pydantic.create_model("Order", key=(Secret, ...))
    with pytest.raises((UnsupportedTypeError, SecretShownError)):
        codec(Secret)
    with pytest.raises((UnsupportedTypeError, SecretShownError)):
        codec(list[Secret])


def test_logs_and_tracebacks_hide_it():
    """As an argument of a log line, as an extra of it, in a traceback with its locals, in an exception's notes."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonLines())
    logger = logging.getLogger("test secrets")
    logger.propagate = False
    logger.addHandler(handler)
    found = secret()
    try:
        _fail(found)
    except ValueError as error:
        error.add_note(f"with {found}")
        logger.exception("paying with %s", found, extra={"key": found})
        whole = traceback.TracebackException.from_exception(error, capture_locals=True)
        stream.write("".join(whole.format()))
    logger.removeHandler(handler)
    text = stream.getvalue()
    assert "stripe-key" in text
    assert VALUE not in text


def _fail(found: Secret) -> None:
    raise ValueError(found)


async def test_an_event_loop_in_debug_hides_it():
    """asyncio shows the arguments of callbacks in debug mode."""
    loop = asyncio.get_running_loop()
    loop.set_debug(True)
    assert VALUE not in repr(loop.call_soon(str, secret()))
    loop.set_debug(False)


def test_two_are_equal_by_their_values():
    """Whatever they are called; and nothing else is equal to one."""
    assert secret() == Secret("other", "1", VALUE.encode())
    assert secret() != Secret("stripe-key", "3", b"x")
    assert secret() != VALUE


def test_the_value_is_given_to_who_asks():
    """As text and as bytes; bytes that are no text are told so without being shown."""
    assert (secret().reveal(), secret().reveal_bytes()) == (VALUE, VALUE.encode())
    raw = b"\xff\xfe" + VALUE.encode()
    with pytest.raises(BadSecretError) as raised:
        Secret("raw", "1", raw).reveal()
    assert raised.value.__context__ is None, "the decoder's error holds what it could not decode"
    assert "canary" not in "".join(traceback.format_exception(raised.value))
