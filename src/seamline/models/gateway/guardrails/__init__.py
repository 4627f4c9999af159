"""What is looked for in questions and answers, one step after another.

A step is a :class:`~seamline.models.gateway.guardrails.step.Guardrail`; those of an application stand beside the
built-in ones. What a step keeps of a call ends with the call. Who may ask which model is the key's affair, not theirs.
"""

from seamline.models.gateway.guardrails.chain import Guarding, Guardrails
from seamline.models.gateway.guardrails.step import Ask, Clearing, Guard, Guardrail, Words

__all__ = ["Ask", "Clearing", "Guard", "Guarding", "Guardrail", "Guardrails", "Words"]
