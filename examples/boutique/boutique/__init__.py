"""Hemstitch, the boutique: a small shop for things that last, as sixteen Seamline modules.

Each package here is a module: its contract stands in ``__init__.py``, its inside in ``module.py``.
What is not a module holds what several share: values of contracts (``money.py``, ``people.py``), how pages are made
(``pages.py``).
"""
