"""Watching: whether a model still sees what it was made for, and still answers as well as it did.

Scores are told as measures whose names begin with ``seamline.model.``, which detection watches, so that a drift is an
incident. What a score says is decided here: what chance explains is told as no change. Serving and versions are not
this room's work.
"""
