"""Secrets: kept sealed, given to who may have them, replaced without a pause, shown to nobody.

Belongs here: the value that hides itself, the sealed store and its master key, leases, rotation, the keeper that
answers for a process or for all, the backends that stand in for the store, and short-lived logins to PostgreSQL.
Does not belong here: who a module is (``mesh/identity``), the rules by which it may (``mesh/policy``) and the channel
on which a worker asks (``run``); they come in as arguments.
"""

from seamline.secrets.lease import Lease
from seamline.secrets.secret import Secret
from seamline.secrets.secrets import Secrets

__all__ = ["Lease", "Secret", "Secrets"]
