"""What can be wrong with secrets.

    SecretsError             SL4600
      MasterKeyError         SL4601  the master key is missing, wrong, damaged or open to others
      SealBrokenError        SL4602  a stored secret is damaged, or is not the one it is stored as
      UnknownSecretError     SL4603  there is no such secret, or no such version of it any more
      ReadOnlyBackendError   SL4604  the backend is written to with its own tools
      BackendDownError       SL4605  the backend does not answer, and what is remembered is too old
      BackendRefusedError    SL4606  the backend does not let the application in
      BadSecretError         SL4607  a name, value or setting cannot be used
      LeaseEndedError        SL4608  the lease has ended
      RotationError          SL4609  a secret could not be given its next value
      SecretShownError       SL4610  something tried to write a secret down
      SdkMissingError        SL4611  the backend's own library is not installed

BackendDownError may heal by itself; the others are for people. No error of this room holds a value.
"""

from __future__ import annotations

from seamline.kernel.errors import SeamlineError


class SecretsError(SeamlineError):
    """SL4600: a secret could not be kept or given."""

    code = "SL4600"


class MasterKeyError(SecretsError):
    """SL4601: the master key is missing, wrong, damaged or open to others; nothing is read or written.

    A key file has mode 0600 in a folder that only its owner may write to. A store is opened by the key it was sealed
    with, or by the one that it was re-sealed with.
    """

    code = "SL4601"


class SealBrokenError(SecretsError):
    """SL4602: a stored secret does not open: damaged, or moved here from another name, version or application."""

    code = "SL4602"


class UnknownSecretError(SecretsError):
    """SL4603: there is no secret of that name, or not that version any more."""

    code = "SL4603"


class ReadOnlyBackendError(SecretsError):
    """SL4604: the backend is written to with its own tools, not through the application."""

    code = "SL4604"


class BackendDownError(SecretsError):
    """SL4605: the backend does not answer, and what is remembered of the secret is older than ``stale_s`` allows."""

    code = "SL4605"


class BackendRefusedError(SecretsError):
    """SL4606: the backend answers, and does not let the application read."""

    code = "SL4606"


class BadSecretError(SecretsError):
    """SL4607: a name, a value or a setting cannot be used."""

    code = "SL4607"


class LeaseEndedError(SecretsError):
    """SL4608: the lease has ended, by time or because it was given back."""

    code = "SL4608"


class RotationError(SecretsError):
    """SL4609: a secret could not be given its next value; the one it has stays."""

    code = "SL4609"


class SecretShownError(SecretsError, TypeError):
    """SL4610: something tried to write a secret down: JSON, pickle, a copy across a seam.

    ``reveal()`` gives the value to the one line that needs it.
    """

    code = "SL4610"


class SdkMissingError(SecretsError):
    """SL4611: the library that the backend is reached with is not installed."""

    code = "SL4611"
