"""The principal is that of the call under way, wherever it is looked at from."""

from __future__ import annotations

import pytest

from seamline import Principal, Unauthenticated, User
from seamline.module.context import CURRENT, CallContext
from seamline.module.principal import Subject

ANN = User("ann", roles=frozenset({"support"}), scopes=frozenset({"read", "write"}))


def test_it_is_a_view_of_the_call_under_way():
    """One Principal, made once, tells of whichever call it is asked in."""
    who = Principal()
    assert (who.user, who.module, who.agent, who.chain) == (None, "", "", ())
    token = CURRENT.set(CallContext("orders", "frontend", subject=Subject(ANN, "helper").acting("frontend")))
    try:
        assert (who.user, who.module, who.agent, who.chain) == (ANN, "orders", "helper", ("frontend",))
        assert who.require_user() is ANN
        assert who.has_role("support")
        assert not who.has_role("admin")
    finally:
        CURRENT.reset(token)
    assert who.user is None


def test_no_user_where_one_is_needed_is_unauthenticated():
    token = CURRENT.set(CallContext("orders", "frontend"))
    try:
        with pytest.raises(Unauthenticated):
            Principal().require_user()
        assert not Principal().has_role("support")
    finally:
        CURRENT.reset(token)


def test_the_chain_grows_by_who_acts_and_is_made_once():
    subject = Subject(ANN)
    one = subject.acting("frontend")
    assert one is subject.acting("frontend")
    assert one.acting("orders").chain == ("frontend", "orders")
    assert subject.chain == ()


def test_narrowing_takes_away_and_never_gives():
    """Scopes are what both allow, also when somebody asks for more than there is."""
    subject = Subject(ANN)
    narrow = subject.narrowed(frozenset({"write", "admin"}))
    assert narrow.user is not None
    assert narrow.user.scopes == {"write"}
    again = narrow.narrowed(frozenset({"read", "write"}))
    assert again.user is not None
    assert again.user.scopes == {"write"}
    assert narrow.narrowed(agent="helper").narrowed(agent="other").agent == "helper"
