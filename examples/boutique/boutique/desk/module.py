"""The inside of the desk: a Starlette app of its own."""

from __future__ import annotations

from boutique.desk.app import app
from seamline import Module

module = Module("desk")
module.mount(app, at="/desk")
