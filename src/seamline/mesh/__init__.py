"""Calls between modules: identity, policy, discovery, balance, retry, limits; local and remote alike.

Belongs here: everything between a stub and a handler. Does not belong here: starting processes and issuing
certificates (``run``), public HTTP (``gateway``), repeating a step of a saga or delivering an event again.
"""
