"""Hemstitch, the boutique: a small shop for things that last, as fourteen Seamline modules.

Each package here is a module: its contract stands in ``__init__.py``, its inside in ``module.py``.
What is not a module (``money.py``, ``people.py``) holds values that several contracts share.
"""
