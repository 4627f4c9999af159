"""What can be wrong with the settings.

SettingsError          SL1000  the application's settings are wrong; nothing was started
  SettingsMissingError      SL1001  there is no seamline.toml
  SettingsSyntaxError       SL1002  the file is not TOML
  UnknownKeyError           SL1003  a key or section that nothing reads
  WrongTypeError            SL1004  a value of another type than the key takes
  BadValueError             SL1005  a value out of range, or not one of the choices
  BadPlacementError         SL1006  a topology or [replicas] does not fit the modules
  DataFolderUnusableError   SL1007  the data directory cannot be made or written
"""

from __future__ import annotations

from typing import ClassVar

from seamline.kernel.errors import SeamlineError


class SettingsError(SeamlineError):
    """The application's settings are wrong; nothing was started."""

    code: ClassVar[str] = "SL1000"


class SettingsMissingError(SettingsError):
    """There is no ``seamline.toml`` in the folder, or it cannot be read.

    ``[app]`` with ``name`` and ``modules`` is enough of a file.
    """

    code: ClassVar[str] = "SL1001"


class SettingsSyntaxError(SettingsError):
    """The file is not TOML at the line and column named; often a quote or a bracket is missing."""

    code: ClassVar[str] = "SL1002"


class UnknownKeyError(SettingsError):
    """A key, a section or an environment variable that nothing reads: mostly a spelling mistake.

    It is an error and not a warning, because a misspelt limit is a limit that is not there.
    """

    code: ClassVar[str] = "SL1003"


class WrongTypeError(SettingsError):
    """The key takes another type of value: numbers and ``true``/``false`` stand without quotes, texts with."""

    code: ClassVar[str] = "SL1004"


class BadValueError(SettingsError):
    """The value is out of range or not one of the choices. Units stand last in the names of keys."""

    code: ClassVar[str] = "SL1005"


class BadPlacementError(SettingsError):
    """Each topology gives each module exactly one place, and ``[replicas]`` speaks of modules.

    ``"*"`` stands for all modules that the other groups do not name.
    """

    code: ClassVar[str] = "SL1006"


class DataFolderUnusableError(SettingsError):
    """Databases, keys and sockets live in the data directory, so its owner must be able to write it."""

    code: ClassVar[str] = "SL1007"
