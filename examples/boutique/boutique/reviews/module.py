"""The reviews app joins the shop as it is."""

from __future__ import annotations

from reviews_before.main import app

from seamline import Module

module = Module("reviews")
module.mount(app, at="/reviews")
