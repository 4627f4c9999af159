"""The inside of the caller: only an identity to call from."""

from __future__ import annotations

from seamline import Module

module = Module("caller")
