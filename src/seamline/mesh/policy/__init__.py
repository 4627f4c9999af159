"""Who may call what: Cedar files, checked against the application, asked as a table.

Belongs here: reading ``policy/*.cedar``, checking every name in it, deciding, explaining, and the table tests.
Does not belong here: who the caller is (``mesh/identity``) and what happens to a refused call (``mesh``).
"""

from __future__ import annotations

from seamline.mesh.policy.arguments import Arguments, arguments_of
from seamline.mesh.policy.cases import Case, CaseResult, read_cases, run_cases
from seamline.mesh.policy.explanation import Explanation, Reason
from seamline.mesh.policy.point import DecisionPoint
from seamline.mesh.policy.policy import Policy
from seamline.mesh.policy.rules import Condition, Elsewhere
from seamline.mesh.policy.secret_rules import SecretRules
from seamline.mesh.policy.sources import Source, Texts, in_folder, policy_source, read_folder
from seamline.mesh.policy.world import EVENTS, GATEWAY, HTTP, PORTAL, Vocabulary, World, call_name

__all__ = [
    "EVENTS",
    "GATEWAY",
    "HTTP",
    "PORTAL",
    "Arguments",
    "Case",
    "CaseResult",
    "Condition",
    "DecisionPoint",
    "Elsewhere",
    "Explanation",
    "Policy",
    "Reason",
    "SecretRules",
    "Source",
    "Texts",
    "Vocabulary",
    "World",
    "arguments_of",
    "call_name",
    "in_folder",
    "policy_source",
    "read_cases",
    "read_folder",
    "run_cases",
]
