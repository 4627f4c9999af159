"""The compiler is compared with Cedar itself: whatever is written and whatever is asked, both say the same."""

from __future__ import annotations

import json
from typing import Any

import cedarpy
from hypothesis import given, settings
from hypothesis import strategies as st

from seamline.mesh.policy import cedar
from seamline.mesh.policy.compiler import Fails, Known, compile_policy
from seamline.mesh.policy.facts import Facts
from seamline.mesh.policy.rules import Conditional
from seamline.mesh.policy.source import SourcePolicy
from seamline.mesh.policy.values import Decimal4, Entity, EvaluationError, as_set, to_json
from seamline.mesh.policy.world import Vocabulary, World
from seamline.module.principal import Subject, User

WORLD = World(
    {"shop": {"level": 3, "tags": ["pci", "eu"], "open": True}, "bank": {"owner": "money"}},
    {"Bank": ("bank", ["pay", "show"]), "Shop": ("shop", ["sell"])},
    vocabulary=Vocabulary(roles=("clerk", "chief"), user_attributes={"grade": "number"}),
)
MODULES, ROLES = ("shop", "bank", "gateway", "none"), ("clerk", "chief")
ENTITIES = [
    *(("Module", name) for name in MODULES),
    *(("Role", name) for name in ROLES),
    ("User", "ann"),
    ("User", "bob"),
    ("Agent", "robot"),
    ("Action", "Bank.pay"),
    ("Action", "Bank"),
]
LONGS = st.sampled_from([0, 1, -1, 2, 3, 5000, 2**63 - 1, -(2**63)])
TEXTS = st.sampled_from(["", "a", "ab", "*", "aab", "eu", "pci", "money", "x\ny"])
NAMES = st.sampled_from(["user", "agent", "chain", "args", "amount", "level", "owner", "tags", "grade", "x", "name"])
Json = dict[str, Any]


def value(of: Any) -> Json:
    return {"Value": of}


def binary(kind: str, left: Json, right: Json) -> Json:
    return {kind: {"left": left, "right": right}}


def method(kind: str, a: Json, b: Json) -> Json:
    return {kind: [a, b]}


def conditional(a: Json, b: Json, c: Json) -> Json:
    return {"if-then-else": {"if": a, "then": b, "else": c}}


def having(left: Json, attr: str) -> Json:
    return {"has": {"left": left, "attr": attr}}


def like(left: Json, pattern: list[Any]) -> Json:
    return {"like": {"left": left, "pattern": pattern}}


def of_kind(left: Json, kind: str) -> Json:
    return {"is": {"left": left, "entity_type": kind}}


def of_kind_in(left: Json, kind: str, place: Json) -> Json:
    return {"is": {"left": left, "entity_type": kind, "in": place}}


def clause(kind: str, body: Json) -> Json:
    return {"kind": kind, "body": body}


def whole(head: Json, action: Json, resource: Json, conditions: list[Json]) -> Json:
    return {"effect": "permit", "principal": head, "action": action, "resource": resource, "conditions": conditions}


def a_subject(user: User | None, agent: str, chain: list[str]) -> Subject:
    return Subject(user, agent, tuple(chain))


def entity(uid: tuple[str, str]) -> Json:
    return value({"__entity": {"type": uid[0], "id": uid[1]}})


def attribute(left: Json, attr: str) -> Json:
    return {".": {"left": left, "attr": attr}}


CONTEXT: Json = {"Var": "context"}
USER = attribute(CONTEXT, "user")
ARGS = attribute(CONTEXT, "args")
PATTERNS = st.lists(st.one_of(st.just("Wildcard"), TEXTS.map(lambda text: {"Literal": text})), max_size=4)
COMPARISONS = ["<", "<=", ">", ">="]
DECIMAL = ["lessThan", "lessThanOrEqual", "greaterThan", "greaterThanOrEqual"]
KINDS = st.sampled_from(["Module", "User"])


def of(*given: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    """Mostly what is meant, now and then anything."""
    return st.integers(0, 15).flatmap(lambda lot: ANY if lot == 0 else st.one_of(*given))


def choice(inner: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    return st.builds(conditional, BOOLEANS, inner, inner)


def pair(kinds: list[str], left: st.SearchStrategy[Json], right: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    return st.builds(binary, st.sampled_from(kinds), left, right)


PATHS = st.one_of(
    st.sampled_from([USER, attribute(CONTEXT, "agent"), attribute(CONTEXT, "chain"), ARGS, CONTEXT]),
    NAMES.map(lambda name: attribute(ARGS, name)),
    NAMES.map(lambda name: attribute(USER, name)),
)
ANY: st.SearchStrategy[Json] = st.deferred(
    lambda: st.one_of(PATHS, BOOLEANS, COUNTS, WORDS, PLACES, SETS, RECORDS, DECIMALS)
)
BOOLEANS: st.SearchStrategy[Json] = st.deferred(
    lambda: of(
        st.booleans().map(value),
        pair(["&&", "||"], BOOLEANS, BOOLEANS),
        pair(["=="], ANY, ANY),
        pair(["==", "!="], WORDS, WORDS),
        pair(COMPARISONS, COUNTS, COUNTS),
        st.builds(method, st.sampled_from(DECIMAL), DECIMALS, DECIMALS),
        pair(["in"], PLACES, st.one_of(PLACES, SETS)),
        pair(["contains"], SETS, ANY),
        pair(["containsAll", "containsAny"], SETS, SETS),
        BOOLEANS.map(lambda arg: {"!": {"arg": arg}}),
        SETS.map(lambda arg: {"isEmpty": {"arg": arg}}),
        choice(BOOLEANS),
        st.builds(having, st.one_of(PATHS, PLACES, RECORDS), NAMES),
        st.builds(like, WORDS, PATTERNS),
        st.builds(of_kind, PLACES, KINDS),
        st.builds(of_kind_in, PLACES, KINDS, PLACES),
    )
)
COUNTS: st.SearchStrategy[Json] = st.deferred(
    lambda: of(
        LONGS.map(value),
        LONGS.map(value),
        pair(["+", "-", "*"], COUNTS, COUNTS),
        COUNTS.map(lambda arg: {"neg": {"arg": arg}}),
        choice(COUNTS),
        st.sampled_from(
            [attribute(USER, "grade"), attribute(ARGS, "amount"), attribute({"Var": "principal"}, "level")]
        ),
    )
)
WORDS: st.SearchStrategy[Json] = st.deferred(
    lambda: of(
        TEXTS.map(value),
        TEXTS.map(value),
        choice(WORDS),
        st.sampled_from([attribute(USER, "name"), attribute(ARGS, "x"), attribute({"Var": "resource"}, "owner")]),
    )
)
PLACES: st.SearchStrategy[Json] = st.deferred(
    lambda: of(
        st.sampled_from(ENTITIES).map(entity),
        st.sampled_from(["principal", "action", "resource"]).map(lambda name: {"Var": name}),
        st.just(USER),
        choice(PLACES),
    )
)
SETS: st.SearchStrategy[Json] = st.deferred(
    lambda: of(
        st.lists(ANY, max_size=3).map(lambda members: {"Set": members}),
        st.lists(st.sampled_from(ENTITIES).map(entity), max_size=3).map(lambda members: {"Set": members}),
        st.sampled_from(
            [attribute({"Var": "principal"}, "tags"), attribute(CONTEXT, "chain"), attribute(USER, "scopes")]
        ),
    )
)
RECORDS: st.SearchStrategy[Json] = st.deferred(
    lambda: of(st.dictionaries(NAMES, ANY, max_size=3).map(lambda fields: {"Record": fields}), st.just(ARGS))
)
DECIMALS: st.SearchStrategy[Json] = st.deferred(
    lambda: of(
        st.sampled_from(["1.0", "1.0000", "-0.5", "0.5", "1.23456", "x"]).map(lambda text: {"decimal": [value(text)]}),
        st.just(attribute(ARGS, "amount")),
    )
)
ANYONE = {"op": "All"}


def mostly_anyone(*given: st.SearchStrategy[Json]) -> st.SearchStrategy[Json]:
    return st.integers(0, 9).flatmap(lambda lot: st.one_of(*given) if lot == 9 else st.just(ANYONE))


def uid(pair: tuple[str, str]) -> Json:
    return {"type": pair[0], "id": pair[1]}


UIDS = st.sampled_from(ENTITIES).map(uid)
HEADS = mostly_anyone(
    UIDS.map(lambda entity: {"op": "==", "entity": entity}),
    UIDS.map(lambda entity: {"op": "in", "entity": entity}),
    st.just({"op": "is", "entity_type": "Module"}),
    UIDS.map(lambda entity: {"op": "is", "entity_type": "Module", "in": {"entity": entity}}),
)
ACTIONS = mostly_anyone(
    st.sampled_from(
        [{"op": "==", "entity": uid(("Action", "Bank.pay"))}, {"op": "in", "entity": uid(("Action", "Bank"))}]
    ),
    st.just({"op": "in", "entities": [uid(("Action", "Shop")), uid(("Action", "Bank"))]}),
)
CONDITIONS = st.lists(
    st.builds(clause, st.sampled_from(["when", "unless"]), BOOLEANS),
    min_size=1,
    max_size=2,
)
BODIES = st.builds(
    whole,
    HEADS,
    ACTIONS,
    HEADS,
    CONDITIONS,
)
NO_ATTRIBUTES: dict[str, str | int | bool] = {}
USERS = st.one_of(
    st.none(),
    st.builds(
        User,
        st.sampled_from(["ann", "bob"]),
        roles=st.frozensets(st.sampled_from(ROLES)),
        name=TEXTS,
        attributes=st.one_of(
            st.just(NO_ATTRIBUTES), LONGS.map(lambda grade: {"grade": grade}), st.just({"grade": "high"})
        ),
        scopes=st.one_of(st.none(), st.frozensets(TEXTS, max_size=2)),
    ),
)
SUBJECTS = st.one_of(
    st.none(),
    st.builds(
        a_subject,
        USERS,
        st.sampled_from(["", "robot"]),
        st.lists(st.sampled_from(MODULES), max_size=2),
    ),
)
PLAIN = st.one_of(
    st.booleans(), LONGS, TEXTS, LONGS.map(Decimal4), st.sampled_from(ENTITIES).map(lambda each: Entity(*each))
)
ARGUMENTS = st.dictionaries(
    NAMES,
    st.recursive(
        PLAIN,
        lambda inner: st.one_of(st.lists(inner, max_size=3).map(as_set), st.dictionaries(NAMES, inner, max_size=2)),
        max_leaves=4,
    ),
    max_size=3,
)
KEYS = st.sampled_from(
    [("shop", "bank", "Bank", "pay"), ("bank", "shop", "Shop", "sell"), ("gateway", "shop", "", "http")]
)


def by_cedar(body: Json, key: tuple[str, str, str, str], facts: Facts) -> bool | None:
    """Whether the policy applies; None if it cannot be judged."""
    ground = WORLD.ground(*key)
    request = {
        "principal": uid((ground.principal.type, ground.principal.id)),
        "action": uid((ground.action.type, ground.action.id)),
        "resource": uid((ground.resource.type, ground.resource.id)),
        "context": to_json(facts.whole()),
    }
    document: Json = {"templates": {}, "staticPolicies": {"p": body}, "templateLinks": []}
    policies = cedarpy.PolicySet.from_json_str(json.dumps(document))
    (result,) = cedar.decide([request], policies, cedar.with_added(WORLD.entities, facts.entities_json()))
    assert result.decision is not cedarpy.Decision.NoDecision, result.diagnostics.errors
    return None if result.diagnostics.errors else bool(result.diagnostics.reasons)


def compiled(body: Json, key: tuple[str, str, str, str], facts: Facts) -> bool | None:
    term = compile_policy(body, WORLD.ground(*key))
    if isinstance(term, Fails):
        return None
    if isinstance(term, Known):
        assert type(term.value) is bool
        return term.value
    outcome = Conditional(SourcePolicy("p:1", "", "permit", None, body), term.ask, reads_user=False).applies(facts)
    return None if isinstance(outcome, EvaluationError) else outcome


@settings(max_examples=300, deadline=None)
@given(BODIES, KEYS, SUBJECTS, ARGUMENTS)
def test_compiled_policies_say_what_cedar_says(
    body: Json, key: tuple[str, str, str, str], subject: Subject | None, arguments: dict[str, Any]
):
    """Applies, does not apply, or cannot be judged: in all three the same, well typed or not."""
    own = WORLD.vocabulary.user_attributes

    def facts() -> Facts:
        return Facts(subject, lambda: arguments, {"path": "/a", "method": "GET"}, own)

    expected = by_cedar(body, key, facts())
    assert compiled(body, key, facts()) is expected


SUBJECT = Subject(User("ann", roles=frozenset({"clerk"}), name="aab", attributes={"grade": 3}), "", ("shop",))
GIVEN: dict[str, Any] = {
    "t": True, "f": False, "n": 5000, "one": 1, "text": "ab", "d": Decimal4(10_000), "set": as_set([1, True, "a"]),
    "nested": {"n": 1, "t": True}, "who": Entity("User", "ann"),
}  # fmt: skip
OPERANDS: list[Json] = [
    *map(value, [True, False, 0, 1, -1, 5000, 2**63 - 1, -(2**63), "", "ab", "aab"]),
    *(
        entity(each)
        for each in [("Module", "shop"), ("User", "ann"), ("User", "bob"), ("Role", "clerk"), ("Action", "Bank")]
    ),
    *({"Var": name} for name in ("principal", "action", "resource", "context")),
    *(attribute(ARGS, name) for name in (*GIVEN, "missing")),
    attribute(attribute(ARGS, "nested"), "t"),
    attribute(CONTEXT, "chain"),
    attribute(CONTEXT, "agent"),
    USER,
    attribute(USER, "name"),
    attribute(USER, "grade"),
    attribute({"Var": "principal"}, "tags"),
    {"Set": []},
    {"Set": [value(1), value(True), value("a")]},
    {"Set": [value(1), value("a")]},
    {"Set": [entity(("Role", "clerk")), entity(("Module", "shop"))]},
    {"Set": [entity(("Role", "clerk")), value(1)]},
    {"Set": [{"Record": {"n": value(1), "t": value(True)}}]},
    {"Record": {"n": value(1), "t": value(True)}},
    {"Record": {"n": value(True), "t": value(1)}},
    {"decimal": [value("1.0")]},
    {"decimal": [value("0.9999")]},
]
RELATIONS = ["==", "!=", "<", "<=", ">", ">=", "&&", "||", "in", "contains", "containsAll", "containsAny"]
WORDS_TRIED = ["", "a", "b", "ab", "ba", "aab", "aba", "abab", "a*b", "ab\nab"]
PATTERNS_TRIED = [
    text.split()
    for text in (
        "",
        "W",
        "a W",
        "W b",
        "a W b",
        "ab W ab",
        "W a W b W",
        "W W",
        "a W a",
        "aa W ab",
        "a*b",
        "W ab W ab",
        "a W b W b",
    )
]


def every_operation() -> list[Json]:
    """Each operator on each pair of operands, and on each alone."""
    made = [binary(kind, a, b) for kind in RELATIONS for a in OPERANDS for b in OPERANDS]
    made += [method(kind, a, b) for kind in DECIMAL for a in OPERANDS for b in OPERANDS]
    made += [binary("==", binary(kind, a, b), value(1)) for kind in "+-*" for a in OPERANDS for b in OPERANDS]
    made += [conditional(a, b, value(True)) for a in OPERANDS for b in OPERANDS]
    made += [conditional(a, value(False), b) for a in OPERANDS for b in OPERANDS]
    for each in OPERANDS:
        made += [{"!": {"arg": each}}, {"isEmpty": {"arg": each}}, binary("<", {"neg": {"arg": each}}, value(0))]
        made += [of_kind(each, kind) for kind in ("Module", "User")]
        made += [of_kind_in(each, "User", place) for place in OPERANDS]
        made += [having(each, name) for name in ("n", "tags", "name", "scopes", "grade", "owner", "user", "agent")]
        made += [binary("==", attribute(each, name), value(1)) for name in ("n", "tags", "name", "grade", "user")]
        made.append(like(each, [{"Literal": "a"}, "Wildcard"]))
    for word in WORDS_TRIED:
        for parts in PATTERNS_TRIED:
            made.append(like(value(word), ["Wildcard" if part == "W" else {"Literal": part} for part in parts]))
    return made


def test_every_operator_on_every_kind_of_operand_is_cedar_s():
    """All pairs, known beforehand or asked, well typed or not: applies, does not, or cannot be judged."""
    key = ("shop", "bank", "Bank", "pay")
    bodies = [whole(ANYONE, ANYONE, ANYONE, [clause("when", each)]) for each in every_operation()]
    document: Json = {
        "templates": {},
        "staticPolicies": {f"p{number}": body for number, body in enumerate(bodies)},
        "templateLinks": [],
    }
    facts = Facts(SUBJECT, lambda: GIVEN, None, WORLD.vocabulary.user_attributes)
    ground = WORLD.ground(*key)
    request = {
        "principal": uid((ground.principal.type, ground.principal.id)),
        "action": uid((ground.action.type, ground.action.id)),
        "resource": uid((ground.resource.type, ground.resource.id)),
        "context": to_json(facts.whole()),
    }
    policies = cedarpy.PolicySet.from_json_str(json.dumps(document))
    (result,) = cedar.decide([request], policies, cedar.with_added(WORLD.entities, facts.entities_json()))
    applied = set(result.diagnostics.reasons)
    failed = {error.partition("`")[2].partition("`")[0] for error in result.diagnostics.errors}
    assert len(applied) > 500
    assert len(failed) > 5000
    for number, body in enumerate(bodies):
        name = f"p{number}"
        expected = None if name in failed else name in applied
        assert compiled(body, key, facts) is expected, body["conditions"][0]["body"]
