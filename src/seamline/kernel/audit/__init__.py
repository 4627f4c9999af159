"""The audit: what was decided and done, in logs that show when somebody has altered them.

    chain        one line and its hashes
    log          AuditLog: append, bound floods, rotate, recover after a crash
    flood        which line of a flood is written
    key          the key that signs checkpoints
    checkpoints  how far each log had come, signed by who watches over the writers
    verify       what was changed, removed, put in or cut off, and where
    search       lines of all logs by time, principal, action, decision and text
    ocsf         lines as events of the Open Cybersecurity Schema Framework

What the lines are about does not belong here: whoever decides something writes a line of it.
"""

from seamline.kernel.audit.errors import AuditError
from seamline.kernel.audit.log import AuditLog, Kind, Written

__all__ = ["AuditError", "AuditLog", "Kind", "Written"]
