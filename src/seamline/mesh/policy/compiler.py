"""Cedar conditions as Python closures, with what is known beforehand worked out beforehand.

Who calls what is known when a condition is compiled, what stands in ``context`` when it is asked. So each node becomes
a value (:class:`Known`), a failure (:class:`Fails`) or a closure over the request's :class:`Facts` (:class:`Asked`).
The semantics are Cedar's: ``&&``, ``||`` and ``if`` look at their right side only if they must, a value of the wrong
type, an overflow and an attribute that is not there fail, and ``==`` never does. What is not compiled (tags, IP
ranges, the arithmetic of time) raises :class:`Uncompiled`; such a policy is left to Cedar itself.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Union, cast

from seamline.mesh.policy.facts import Facts
from seamline.mesh.policy.values import (
    Decimal4,
    Entity,
    EvaluationError,
    Moment,
    Value,
    as_set,
    equal,
    fits,
    from_json,
    key,
)

Ask = Callable[[Facts], Value]
Json = Mapping[str, Any]

_DEPTH_MAX = 60
_STATIC = ("Module", "Action", "Secret")
"""The types whose entities are the same in every request."""


class Uncompiled(Exception):
    """The expression uses what is not compiled here."""


@dataclass(frozen=True, slots=True)
class Known:
    value: Value


@dataclass(frozen=True, slots=True)
class Fails:
    why: str


@dataclass(frozen=True, slots=True)
class Asked:
    ask: Ask


Term = Union[Known, Fails, Asked]  # noqa: UP007  # read at run time by nothing, but an alias must be a value


@dataclass(frozen=True, slots=True)
class Ground:
    """What is known of a request before it is made: who calls what, and the entities that do not change."""

    principal: Entity
    action: Entity
    resource: Entity
    attributes: Mapping[Entity, Mapping[str, Value]]
    ancestors: Mapping[Entity, frozenset[Entity]]


def compile_policy(body: Json, ground: Ground) -> Term:
    """Whether the policy applies: its scope and conditions. Raises Uncompiled."""
    if not scope_matches(body, ground):
        return Known(False)
    compiler = _Compiler(ground)
    terms: list[Term] = []
    for condition in body["conditions"]:
        term = compiler.term(condition["body"])
        terms.append(_negated(term) if condition["kind"] == "unless" else term)
    return _junction(terms, ends=False)


def compile_expression(node: Json, ground: Ground) -> Ask:
    """What an expression is. Raises Uncompiled."""
    return _closure(_Compiler(ground).term(node))


def scope_matches(body: Json, ground: Ground) -> bool:
    """Whether the policy's head, without its conditions, speaks of the request."""
    return all(
        _in_scope(body[name], entity, ground)
        for name, entity in (("principal", ground.principal), ("action", ground.action), ("resource", ground.resource))
    )


def action_matches(body: Json, ground: Ground) -> bool:
    """Whether the policy's head speaks of the action."""
    return _in_scope(body["action"], ground.action, ground)


def _in_scope(scope: Json, entity: Entity, ground: Ground) -> bool:
    match scope["op"]:
        case "All":
            return True
        case "==":
            return entity == _uid(scope["entity"])
        case "in":
            named = scope["entities"] if "entities" in scope else [scope["entity"]]
            return any(_within(entity, _uid(other), ground) for other in named)
        case "is":
            if entity.type != scope["entity_type"]:
                return False
            return "in" not in scope or _within(entity, _uid(scope["in"]["entity"]), ground)
        case _:
            raise Uncompiled(scope["op"])


def _uid(entity: Json) -> Entity:
    return Entity(entity["type"], entity["id"])


def _within(entity: Entity, other: Entity, ground: Ground) -> bool:
    return entity == other or other in ground.ancestors.get(entity, ())


class _Compiler:
    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._depth = 0

    def term(self, node: Json) -> Term:
        ((kind, body),) = node.items()
        compile_ = _NODES.get(kind)
        if compile_ is None or self._depth > _DEPTH_MAX:
            raise Uncompiled(kind)
        self._depth += 1
        try:
            return compile_(self, body)
        finally:
            self._depth -= 1

    def value(self, body: Any) -> Term:
        try:
            return Known(from_json(body))
        except KeyError as error:
            raise Uncompiled(str(error)) from None

    def variable(self, name: str) -> Term:
        match name:
            case "principal":
                return Known(self._ground.principal)
            case "action":
                return Known(self._ground.action)
            case "resource":
                return Known(self._ground.resource)
            case _:
                return Asked(Facts.whole)

    def conjunction(self, body: Json) -> Term:
        return _junction([self.term(each) for each in _flat("&&", body)], ends=False)

    def disjunction(self, body: Json) -> Term:
        return _junction([self.term(each) for each in _flat("||", body)], ends=True)

    def negation(self, body: Json) -> Term:
        return _negated(self.term(body["arg"]))

    def minus(self, body: Json) -> Term:
        return _strict(_opposite, self.term(body["arg"]))

    def choice(self, body: Json) -> Term:
        condition = self.term(body["if"])
        if isinstance(condition, Fails):
            return condition
        if isinstance(condition, Known):
            if type(condition.value) is not bool:
                return Fails("the condition of `if` is not a Boolean")
            return self.term(body["then" if condition.value else "else"])
        ask, then, otherwise = condition.ask, _closure(self.term(body["then"])), _closure(self.term(body["else"]))
        return Asked(lambda facts: then(facts) if _boolean(ask(facts)) else otherwise(facts))

    def attribute(self, body: Json) -> Term:
        name: str = body["attr"]
        if body["left"] == {"Var": "context"}:
            return Asked(lambda facts: facts[name])
        left = self.term(body["left"])
        if isinstance(left, Fails):
            return left
        attributes = self._ground.attributes
        if isinstance(left, Known) and not self._changes(left.value):
            return _worked_out(lambda: _get(left.value, name, attributes.get))
        ask = _closure(left)

        def get(facts: Facts) -> Value:
            return _get(ask(facts), name, lambda entity: facts.attributes_of(entity) or attributes.get(entity))

        return Asked(get)

    def has(self, body: Json) -> Term:
        name: str = body["attr"]
        if body["left"] == {"Var": "context"}:
            return Asked(lambda facts: facts.has(name))
        left = self.term(body["left"])
        if isinstance(left, Fails):
            return left
        attributes = self._ground.attributes
        if isinstance(left, Known) and not self._changes(left.value):
            return _worked_out(lambda: name in _attributes(left.value, attributes.get))
        ask = _closure(left)

        def has(facts: Facts) -> bool:
            return name in _attributes(ask(facts), lambda entity: facts.attributes_of(entity) or attributes.get(entity))

        return Asked(has)

    def within(self, body: Json) -> Term:
        return self._within(self.term(body["left"]), self.term(body["right"]))

    def _within(self, left: Term, right: Term) -> Term:
        ground = self._ground
        if isinstance(left, Known) and isinstance(right, Known) and not self._changes(left.value):
            return _worked_out(lambda: _member(left.value, right.value, ground, None))
        for term in (left, right):
            if isinstance(term, Fails):
                return term
        ask_left, ask_right = _closure(left), _closure(right)
        return Asked(lambda facts: _member(ask_left(facts), ask_right(facts), ground, facts))

    def kind(self, body: Json) -> Term:
        left = self.term(body["left"])
        wanted: str = body["entity_type"]

        def is_wanted(value: Value) -> bool:
            return _entity(value).type == wanted

        is_kind = _strict(is_wanted, left)
        if "in" not in body:
            return is_kind
        return _junction([is_kind, self._within(left, self.term(body["in"]))], ends=False)

    def like(self, body: Json) -> Term:
        matches = _pattern(body["pattern"])

        def is_like(value: Value) -> bool:
            return matches(_text(value))

        return _strict(is_like, self.term(body["left"]))

    def members(self, body: Sequence[Json]) -> Term:
        return _strict(lambda *values: as_set(values), *map(self.term, body))

    def record(self, body: Mapping[str, Json]) -> Term:
        names = tuple(body)
        return _strict(lambda *values: dict(zip(names, values, strict=True)), *map(self.term, body.values()))

    def is_empty(self, body: Json) -> Term:
        return _strict(_nothing_in, self.term(body["arg"]))

    def decimal(self, body: Sequence[Json]) -> Term:
        return _strict(_as_decimal, *map(self.term, body))

    def _changes(self, value: Value) -> bool:
        """Whether what is known of the value may differ from request to request."""
        return isinstance(value, Entity) and value.type not in _STATIC


def _binary(apply: Callable[[Value, Value], Value]) -> Callable[[_Compiler, Json], Term]:
    return lambda compiler, body: _strict(apply, compiler.term(body["left"]), compiler.term(body["right"]))


def _ordering(compare: Callable[[int, int], bool]) -> Callable[[_Compiler, Json], Term]:
    def ordered(left: Value, right: Value) -> bool:
        if type(left) is int and type(right) is int:
            return compare(left, right)
        if type(left) is Moment and type(right) is Moment:
            return compare(left.ms, right.ms)
        raise EvaluationError("what is compared are not two Longs")

    return _binary(ordered)


def _decimal_ordering(compare: Callable[[int, int], bool]) -> Callable[[_Compiler, Sequence[Json]], Term]:
    def ordered(left: Value, right: Value) -> bool:
        if type(left) is Decimal4 and type(right) is Decimal4:
            return compare(left.scaled, right.scaled)
        raise EvaluationError("what is compared are not two decimals")

    return lambda compiler, body: _strict(ordered, *map(compiler.term, body))


def _arithmetic(compute: Callable[[int, int], int]) -> Callable[[_Compiler, Json], Term]:
    return _binary(lambda left, right: fits(compute(_long(left), _long(right))))


def _strict(apply: Callable[..., Value], *terms: Term) -> Term:
    """An operator that looks at all its operands."""
    for term in terms:
        if isinstance(term, Fails):
            return term
    known = [term.value for term in terms if isinstance(term, Known)]
    if len(known) == len(terms):
        return _worked_out(lambda: apply(*known))
    asks = [_closure(term) for term in terms]
    if len(asks) == 1:
        (only,) = asks
        return Asked(lambda facts: apply(only(facts)))
    if len(asks) == 2:
        first, second = asks
        if isinstance(terms[1], Known):
            value = terms[1].value
            return Asked(lambda facts: apply(first(facts), value))
        return Asked(lambda facts: apply(first(facts), second(facts)))
    return Asked(lambda facts: apply(*[ask(facts) for ask in asks]))


def _worked_out(compute: Callable[[], Value]) -> Term:
    try:
        return Known(compute())
    except EvaluationError as error:
        return Fails(str(error))


def _closure(term: Term) -> Ask:
    if isinstance(term, Asked):
        return term.ask
    if isinstance(term, Known):
        value = term.value
        return lambda _: value
    why = term.why

    def fail(_: Facts) -> Value:
        raise EvaluationError(why)

    return fail


def _flat(operator_: str, body: Json) -> list[Json]:
    """The operands of a chain of ``&&`` or ``||``, which Cedar nests to the left, in order."""
    operands = [body["right"]]
    left = body["left"]
    while operator_ in left:
        operands.append(left[operator_]["right"])
        left = left[operator_]["left"]
    operands.append(left)
    return operands[::-1]


def _junction(terms: Sequence[Term], *, ends: bool) -> Term:
    """``&&`` (which a False ends) or ``||`` (which a True ends); of none, what ends nothing."""
    asks: list[Ask] = []
    for term in terms:
        if isinstance(term, Asked):
            asks.append(term.ask)
            continue
        if isinstance(term, Known) and term.value is not ends and type(term.value) is bool:
            continue  # it changes nothing
        settled = term if isinstance(term, Fails) or type(term.value) is bool else Fails("an operand is not a Boolean")
        if not asks:
            return settled
        asks.append(_closure(settled))  # what stands before it may still fail, or end it
        break
    if not asks:
        return Known(not ends)
    return Asked(_until(tuple(asks), ends))


def _until(asks: tuple[Ask, ...], ends: bool) -> Ask:
    def ask_all(facts: Facts) -> bool:
        for ask in asks:
            if _boolean(ask(facts)) is ends:
                return ends
        return not ends

    return ask_all


def _negated(term: Term) -> Term:
    return _strict(_opposed, term)


def _opposed(value: Value) -> bool:
    return not _boolean(value)


def _opposite(value: Value) -> int:
    return fits(-_long(value))


def _nothing_in(value: Value) -> bool:
    return not _set(value)


def _as_decimal(value: Value) -> Decimal4:
    return Decimal4.parse(_text(value))


def _boolean(value: Value) -> bool:
    if type(value) is bool:
        return value
    raise EvaluationError("what is asked is not a Boolean")


def _long(value: Value) -> int:
    if type(value) is int:
        return value
    raise EvaluationError("what is counted with is not a Long")


def _text(value: Value) -> str:
    if type(value) is str:
        return value
    raise EvaluationError("what is compared with a pattern is not a String")


def _set(value: Value) -> frozenset[Any]:
    if type(value) is frozenset:
        return cast("frozenset[Any]", value)
    raise EvaluationError("what is searched is not a Set")


def _entity(value: Value) -> Entity:
    if type(value) is Entity:
        return value
    raise EvaluationError("what should be an entity is none")


Find = Callable[[Entity], Mapping[str, Value] | None]
_NOTHING: Mapping[str, Value] = {}


def _attributes(value: Value, find: Find) -> Mapping[str, Value]:
    if type(value) is dict:
        return cast("dict[str, Value]", value)
    return find(_entity(value)) or _NOTHING


def _get(value: Value, name: str, find: Find) -> Value:
    try:
        return _attributes(value, find)[name]
    except KeyError:
        raise EvaluationError(f"there is no attribute {name!r}") from None


def _member(value: Value, place: Value, ground: Ground, facts: Facts | None) -> bool:
    entity = _entity(value)
    others = (place,) if type(place) is Entity else [_entity(each) for each in _set(place)]
    return any(
        _within(entity, other, ground) or (facts is not None and facts.within(entity, other)) for other in others
    )


def _pattern(parts: Sequence[Any]) -> Callable[[str], bool]:
    """``like``: texts in order with anything between them, without going back."""
    pieces = [""]
    for part in parts:
        if part == "Wildcard":
            pieces.append("")
        else:
            pieces[-1] += part["Literal"]
    if len(pieces) == 1:
        return lambda text: text == pieces[0]
    first, *middle, last = pieces

    def matches(text: str) -> bool:
        if len(text) < len(first) + len(last) or not text.startswith(first) or not text.endswith(last):
            return False
        position, end = len(first), len(text) - len(last)
        for piece in middle:
            found = text.find(piece, position, end)
            if found < 0:
                return False
            position = found + len(piece)
        return True

    return matches


_NODES: dict[str, Callable[[_Compiler, Any], Term]] = {
    "Value": _Compiler.value,
    "Var": _Compiler.variable,
    "&&": _Compiler.conjunction,
    "||": _Compiler.disjunction,
    "!": _Compiler.negation,
    "neg": _Compiler.minus,
    "if-then-else": _Compiler.choice,
    ".": _Compiler.attribute,
    "has": _Compiler.has,
    "in": _Compiler.within,
    "is": _Compiler.kind,
    "like": _Compiler.like,
    "Set": _Compiler.members,
    "Record": _Compiler.record,
    "isEmpty": _Compiler.is_empty,
    "decimal": _Compiler.decimal,
    "==": _binary(equal),
    "!=": _binary(lambda left, right: not equal(left, right)),
    "<": _ordering(operator.lt),
    "<=": _ordering(operator.le),
    ">": _ordering(operator.gt),
    ">=": _ordering(operator.ge),
    "+": _arithmetic(operator.add),
    "-": _arithmetic(operator.sub),
    "*": _arithmetic(operator.mul),
    "contains": _binary(lambda left, right: key(right) in _set(left)),
    "containsAll": _binary(lambda left, right: _set(left) >= _set(right)),
    "containsAny": _binary(lambda left, right: not _set(left).isdisjoint(_set(right))),
    "lessThan": _decimal_ordering(operator.lt),
    "lessThanOrEqual": _decimal_ordering(operator.le),
    "greaterThan": _decimal_ordering(operator.gt),
    "greaterThanOrEqual": _decimal_ordering(operator.ge),
}
