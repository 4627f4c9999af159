"""Budgets and quotas: what a call may cost is reserved before it and settled after it."""

from __future__ import annotations
