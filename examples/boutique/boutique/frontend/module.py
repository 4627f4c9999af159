"""The inside of the frontend: a Starlette app at the root of the shop."""

from __future__ import annotations

from boutique.frontend.app import app
from seamline import Module

module = Module("frontend")
module.mount(app, at="/")
