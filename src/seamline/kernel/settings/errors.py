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
    code: ClassVar[str] = "SL1001"


class SettingsSyntaxError(SettingsError):
    code: ClassVar[str] = "SL1002"


class UnknownKeyError(SettingsError):
    code: ClassVar[str] = "SL1003"


class WrongTypeError(SettingsError):
    code: ClassVar[str] = "SL1004"


class BadValueError(SettingsError):
    code: ClassVar[str] = "SL1005"


class BadPlacementError(SettingsError):
    code: ClassVar[str] = "SL1006"


class DataFolderUnusableError(SettingsError):
    code: ClassVar[str] = "SL1007"
