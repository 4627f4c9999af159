"""The AI gateway: one door to language models of any make, inside and out, with keys, budgets, guardrails and accounts.

Engines themselves are in :mod:`seamline.models.remote` and :mod:`seamline.models.runtimes`.
"""
