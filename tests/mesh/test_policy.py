"""Policy: deny by default, every name checked, the same answer from the table as from Cedar."""

# pyright: reportPrivateUsage=false
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, reject
from hypothesis import strategies as st

from seamline.mesh.errors import PolicyError, PolicySyntaxError, PolicyTypeError, UnknownPolicyNameError
from seamline.mesh.policy import HTTP, Policy
from seamline.mesh.policy.source import statements
from seamline.mesh.policy.world import PLAIN

MODULES: dict[str, dict[str, Any]] = {
    "frontend": {"owner": "web"},
    "checkout": {"owner": "money", "tags": ["pci"], "level": 2},
    "payments": {"owner": "money", "tags": ["pci"], "level": 3},
    "ads": {},
}
CONTRACTS = {
    "Payments": ("payments", ["charge", "refund"]),
    "Checkout": ("checkout", ["place"]),
    "Ads": ("ads", ["choose"]),
}
CHARGE = ("payments", "Payments", "charge")
REFUND = ("payments", "Payments", "refund")


def policy(text: str) -> Policy:
    return Policy.from_text(text, modules=MODULES, contracts=CONTRACTS)


def in_folder(folder: Path, text: str) -> Policy:
    folder.mkdir(exist_ok=True)
    (folder / "payments.cedar").write_text(text)
    return Policy.load(folder, modules=MODULES, contracts=CONTRACTS)


PERMIT_CHECKOUT = (
    'permit(principal == Module::"checkout", action in Action::"Payments", resource == Module::"payments");'
)


def test_nothing_is_permitted_by_an_empty_policy():
    empty = policy("// nothing yet\n")
    assert empty.permitted() == []
    assert not empty.allows("checkout", *CHARGE)
    assert not empty.allows("gateway", "frontend", "", HTTP)


def test_a_folder_that_is_not_there_permits_nothing(tmp_path: Path):
    assert Policy.load(tmp_path / "none", modules=MODULES, contracts=CONTRACTS).permitted() == []


def test_a_contract_or_one_method_can_be_permitted():
    whole = policy(PERMIT_CHECKOUT)
    assert whole.permitted() == [
        ("checkout", "payments", "Payments.charge"),
        ("checkout", "payments", "Payments.refund"),
    ]
    one = policy('permit(principal == Module::"checkout", action == Action::"Payments.refund", resource);')
    assert one.permitted() == [("checkout", "payments", "Payments.refund")]


def test_public_http_is_an_action_of_its_own():
    """A module that may be reached by the public is not thereby reached by other modules, nor the other way round."""
    public = policy('permit(principal == Module::"gateway", action == Action::"http", resource == Module::"frontend");')
    assert public.permitted() == [("gateway", "frontend", "http")]
    assert not policy(PERMIT_CHECKOUT).allows("checkout", "payments", "", HTTP)


def test_a_forbid_wins_over_any_permit():
    both = policy('permit(principal, action, resource);\nforbid(principal == Module::"ads", action, resource);')
    assert both.allows("checkout", *CHARGE)
    assert not both.allows("ads", *CHARGE)


def test_a_module_may_call_itself_unless_forbidden():
    assert policy("").allows("payments", *CHARGE)
    assert not policy('forbid(principal, action == Action::"Payments.charge", resource);').allows("payments", *CHARGE)


@pytest.mark.parametrize(
    "key",
    [
        ("nobody", *CHARGE),
        ("checkout", "nobody", "Payments", "charge"),
        ("checkout", "ads", "Payments", "charge"),
        ("checkout", "payments", "Payments", "steal"),
        ("checkout", "payments", "Nothing", "charge"),
        ("checkout", "payments", "", "charge"),
        ("checkout", "payments", "Payments", ""),
        ("", "", "", ""),
        ("checkout", 'payments"', "Payments", "charge"),
    ],
)
def test_what_does_not_exist_is_denied_even_if_everything_is_permitted(key: tuple[str, str, str, str]):
    assert not policy("permit(principal, action, resource);").allows(*key)


def test_strange_names_do_not_fill_the_memory():
    """A peer that invents methods is refused each time, and nothing of it is kept."""
    open_policy = policy("permit(principal, action, resource);")
    for number in range(1000):
        assert not open_policy.allows("checkout", "payments", "Payments", f"method{number}")
        assert "no such module or method" in open_policy.denial_text("checkout", "", "", f"method{number}")[1]
    assert len(open_policy._table) == len(open_policy._table.denials) == 0


def test_attributes_decide():
    by_tag = policy('permit(principal, action, resource) when { principal.tags.contains("pci") };')
    assert by_tag.allows("checkout", *CHARGE)
    assert not by_tag.allows("frontend", *CHARGE)
    by_owner = policy(
        "permit(principal, action, resource)\n"
        "when { principal has owner && resource has owner && principal.owner == resource.owner };"
    )
    assert by_owner.allows("checkout", *CHARGE)
    assert not by_owner.allows("frontend", *CHARGE)
    assert not by_owner.allows("ads", *CHARGE)


def test_a_policy_that_fails_to_evaluate_denies():
    """Cedar passes over a forbid whose arithmetic overflows; here the call is refused instead."""
    overflowing = policy(
        "permit(principal, action, resource);\n"
        "forbid(principal, action, resource)\n"
        "when { principal has level && principal.level + 9223372036854775807 > 0 };"
    )
    assert not overflowing.allows("checkout", *CHARGE)
    assert overflowing.allows("frontend", *CHARGE)


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        (
            f'{PERMIT_CHECKOUT}\n\npermit(\n  principal == Module::"chekout",\n  action,\n  resource\n);',
            UnknownPolicyNameError,
            "SL4502: policy.cedar:4: there is no module 'chekout'. Did you mean 'checkout'?",
        ),
        (
            'permit(principal, action == Action::"Payments.chrge", resource);',
            UnknownPolicyNameError,
            "SL4502: policy.cedar:1: there is no method or contract 'Payments.chrge'. Did you mean 'Payments.charge'?",
        ),
        (
            'permit(principal, action in [\n  Action::"Ads",\n  Action::"Payment"],\n  resource);',
            UnknownPolicyNameError,
            "SL4502: policy.cedar:3: there is no method or contract 'Payment'. Did you mean 'Payments'?",
        ),
        (
            'permit(principal, action, resource)\nwhen { resource in [Module::"paymnts"] };',
            UnknownPolicyNameError,
            "SL4502: policy.cedar:2: there is no module 'paymnts'. Did you mean 'payments'?",
        ),
        (
            'permit(principal == Modul::"ads", action, resource);',
            UnknownPolicyNameError,
            (
                'SL4502: policy.cedar:1: Modul::"ads" does not exist: '
                "the entities are Module, Action, User, Role, Agent and Secret. Did you mean 'Module'?"
            ),
        ),
        (
            '// first\npermit(principal, action in Contract::"Payments", resource);',
            PolicySyntaxError,
            (
                'SL4501: policy.cedar:2: Contract::"Payments" cannot be an action. '
                'Cedar\'s actions have the type Action: write Action::"Payments".'
            ),
        ),
        (
            "permit(principal,\n  action\n  resource);",
            PolicySyntaxError,
            "SL4501: policy.cedar:3: not Cedar: unexpected token `resource`. See docs.cedarpolicy.com for the syntax.",
        ),
        (
            f"{PERMIT_CHECKOUT}\npermit(principal, action, resource)",
            PolicySyntaxError,
            "SL4501: policy.cedar:2: the policy ends too early. End it with `;` and close its brackets and strings.",
        ),
        (
            'permit(principal == Module::"ads, action, resource);',
            PolicySyntaxError,
            "SL4501: policy.cedar:1: not Cedar: invalid token. See docs.cedarpolicy.com for the syntax.",
        ),
        (
            "permit(principal == ?principal, action, resource);",
            PolicySyntaxError,
            (
                "SL4501: policy.cedar:1: a template (`?principal` or `?resource`) is never linked here, "
                "so it would decide nothing. Name the module, or leave the scope open and write a `when` clause."
            ),
        ),
        (
            'permit(principal, action in Action::"Payments",\n  resource == Module::"ads");',
            PolicyTypeError,
            (
                "SL4503: policy.cedar:2: the policy can never apply: the action does not belong to 'ads'. "
                'Write resource == Module::"payments".'
            ),
        ),
        (
            'permit(principal, action, resource)\nwhen {\n  principal.owner == "web" };',
            PolicyTypeError,
            (
                "SL4503: policy.cedar:3: attribute 'owner' is not on every module. "
                "Ask first: `principal has owner && ...`."
            ),
        ),
        (
            "permit(principal, action, resource)\nwhen { principal.tag == 1 };",
            PolicyTypeError,
            "SL4503: policy.cedar:2: attribute `tag` on entity type `Module` not found. Correct the condition.",
        ),
        (
            "permit(principal, action, resource) when { context.hour < 9 };",
            PolicyTypeError,
            "SL4503: policy.cedar:1: attribute `hour` in context for",
        ),
    ],
)
def test_a_mistake_is_told_with_line_and_remedy(text: str, kind: type[PolicyError], expected: str):
    with pytest.raises(kind) as caught:
        policy(text)
    assert str(caught.value).startswith(expected)


def test_all_mistakes_are_found_at_once():
    with pytest.raises(PolicyError) as caught:
        policy(
            'permit(principal == Module::"a1", action, resource);\n'
            "permit(;\n"
            "permit(principal is User, action, resource);"
        )
    assert [finding.place for finding in caught.value.findings] == [
        "policy.cedar:1",
        "policy.cedar:2",
        "policy.cedar:3",
    ]


def test_a_file_that_is_not_text_is_an_error(tmp_path: Path):
    (tmp_path / "x.cedar").write_bytes(b"\xff\xfe")
    with pytest.raises(PolicyError, match="UTF-8"):
        Policy.load(tmp_path, modules=MODULES, contracts=CONTRACTS)


def test_a_reload_changes_decisions_and_the_epoch(tmp_path: Path):
    reloaded = in_folder(tmp_path / "policy", "")
    assert not reloaded.allows("checkout", *CHARGE)
    epoch = reloaded.epoch
    (tmp_path / "policy" / "payments.cedar").write_text(PERMIT_CHECKOUT)
    assert not reloaded.allows("checkout", *CHARGE)
    assert reloaded.reload() == epoch + 1
    assert reloaded.allows("checkout", *CHARGE)


def test_a_reload_that_fails_leaves_the_old_policy_in_force(tmp_path: Path):
    reloaded = in_folder(tmp_path / "policy", PERMIT_CHECKOUT)
    epoch = reloaded.epoch
    (tmp_path / "policy" / "payments.cedar").write_text("permit(")
    with pytest.raises(PolicySyntaxError, match=r"policy/payments\.cedar:1"):
        reloaded.reload()
    assert reloaded.epoch == epoch
    assert reloaded.allows("checkout", *CHARGE)
    assert not reloaded.allows("ads", *CHARGE)


def test_a_permission_is_explained_by_name_and_place():
    explained = policy(f'\n@id("checkout pays")\n{PERMIT_CHECKOUT}').explain("checkout", *CHARGE)
    assert explained.allowed
    assert [reason.name for reason in explained.reasons] == ["checkout pays (policy.cedar:2)"]
    assert explained.fact == "module 'checkout' may call 'Payments.charge' of 'payments'"
    assert explained.remedy == ""


def test_a_prohibition_is_explained_by_what_forbids():
    text = f'{PERMIT_CHECKOUT}\n@id("frozen")\nforbid(principal, action == Action::"Payments.charge", resource);'
    explained = policy(text).explain("checkout", *CHARGE)
    assert not explained.allowed
    assert explained.remedy == "Forbidden by frozen (policy.cedar:2): change it."


def test_following_the_remedy_of_a_denial_permits_the_call():
    """The line that is proposed is the line that is missing."""
    denied = policy("").explain("ads", *REFUND)
    assert not denied.allowed
    proposed = denied.remedy.split("`")[1]
    assert policy(proposed).permitted() == [("ads", "payments", "Payments.refund")]


def test_a_denial_has_words():
    fact, remedy = policy("").denial_text("ads", *CHARGE)
    assert fact == "module 'ads' may not call 'Payments.charge' of 'payments'"
    assert remedy.startswith('Add `permit(principal == Module::"ads", action == Action::"Payments.charge"')
    assert remedy.endswith("to policy/payments.cedar; what runs takes it at `seamline policy reload`.")
    _, remedy = policy('forbid(principal == Module::"ads", action, resource);').denial_text("ads", *CHARGE)
    assert remedy == "Forbidden by policy.cedar:1: change it."
    fact, _ = policy("").denial_text("gateway", "payments", "", HTTP)
    assert fact == "'gateway' may not send public HTTP requests to module 'payments'"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a;b;", [(1, "a;"), (1, "b;")]),
        ("// a;\n\na\n;\n\nb;", [(3, "a\n;"), (6, "b;")]),
        ('@id("x;y//z")\na;', [(1, '@id("x;y//z")\na;')]),
        ('@id("a\\";")b;c;', [(1, '@id("a\\";")b;'), (1, "c;")]),
        ("a // no; end\n;b", [(1, "a // no; end\n;"), (2, "b")]),
        ("  \n// only\n", []),
    ],
)
def test_policies_are_told_apart(text: str, expected: list[tuple[int, str]]):
    assert list(statements(text)) == expected


@given(st.text(alphabet='ab;/" \n\\'))
def test_no_text_is_lost_in_cutting(text: str):
    """Everything but blanks and comments between policies is in exactly one of them, in order."""
    kept = "".join(statement for _, statement in statements(text))
    rest = iter(text)
    assert all(character in rest for character in kept)
    assert kept.count(";") <= text.count(";")


CALLERS = [*MODULES, "gateway", "portal"]
CALLS = [
    *((module, c, m) for c, (module, names) in CONTRACTS.items() for m in names),
    *((m, "", plain) for m in MODULES for plain in PLAIN),
]
Rule = tuple[bool, str | None, str | None, str | None]
RULES = st.lists(
    st.tuples(
        st.booleans(),
        st.sampled_from([None, *CALLERS]),
        st.sampled_from([None, *CONTRACTS, *(f"{c}.{m}" for _, c, m in CALLS if c), *PLAIN]),
        st.sampled_from([None, *MODULES]),
    ),
    max_size=6,
)


def as_cedar(rule: Rule) -> str:
    permit, caller, call, callee = rule
    return "{}(principal{}, action{}, resource{});".format(
        "permit" if permit else "forbid",
        f' == Module::"{caller}"' if caller else "",
        f' in Action::"{call}"' if call else "",
        f' == Module::"{callee}"' if callee else "",
    )


def matches(rule: Rule, caller: str, callee: str, contract: str, method: str) -> bool:
    _, of_caller, of_call, of_callee = rule
    name = f"{contract}.{method}" if contract else method
    return of_caller in {None, caller} and of_call in {None, name, contract or None} and of_callee in {None, callee}


@given(RULES)
def test_the_table_agrees_with_the_rules(rules: list[Rule]):
    """Compiled at once or asked one by one, the answers are those of a plain reading of the rules."""
    text = "\n".join(map(as_cedar, rules))
    try:
        compiled, lazy = policy(text), policy(text)
    except PolicyTypeError:
        reject()  # a rule that can never apply
    assert compiled.compile_table() == len(CALLERS) * len(CALLS)
    assert compiled.compile_table() == 0
    for caller in CALLERS:
        for call in CALLS:
            effects = {rule[0] for rule in rules if matches(rule, caller, *call)}
            expected = False not in effects and (True in effects or caller == call[0])
            assert compiled.allows(caller, *call) == expected
            assert lazy.allows(caller, *call) == expected
            assert lazy.explain(caller, *call).allowed == expected
