"""What can be wrong in the portal.

    PortalError            SL6600
      NoCallerError        SL6601  a request came without a session
      RoleNeededError      SL6602  the session's role does not permit the action
      NotFoundError        SL6603  there is no such page, module, trace or other thing
      FieldError           SL6604  a form's field is missing or wrong

The first two are the visitor's to mend by signing in, the others by asking for something else.
"""

from __future__ import annotations

from typing import ClassVar

from seamline.kernel.errors import SeamlineError


class PortalError(SeamlineError):
    """SL6600: a page could not be shown, or an action not done."""

    code = "SL6600"
    status: ClassVar[int] = 500


class NoCallerError(PortalError):
    """SL6601: a request came without a session."""

    code = "SL6601"
    status = 401


class RoleNeededError(PortalError):
    """SL6602: the session's role does not permit the action."""

    code = "SL6602"
    status = 403


class NotFoundError(PortalError):
    """SL6603: there is no such page, module, trace or other thing."""

    code = "SL6603"
    status = 404


class FieldError(PortalError):
    """SL6604: a form's field is missing or wrong."""

    code = "SL6604"
    status = 400
