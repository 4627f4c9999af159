"""What can be wrong with the settings.

SettingsError          SL1000  the application's settings are wrong; nothing was started
  SettingsMissing      SL1001  there is no seamline.toml
  SettingsSyntax       SL1002  the file is not TOML
  UnknownKey           SL1003  a key or section that nothing reads
  WrongType            SL1004  a value of another type than the key takes
  BadValue             SL1005  a value out of range, or not one of the choices
  BadPlacement         SL1006  a topology or [replicas] does not fit the modules
  DataFolderUnusable   SL1007  the data directory cannot be made or written
"""

from __future__ import annotations

from typing import ClassVar

from seamline.kernel.errors import SeamlineError


class SettingsError(SeamlineError):
    """The application's settings are wrong; nothing was started."""

    code: ClassVar[str] = "SL1000"


class SettingsMissing(SettingsError):
    code: ClassVar[str] = "SL1001"


class SettingsSyntax(SettingsError):
    code: ClassVar[str] = "SL1002"


class UnknownKey(SettingsError):
    code: ClassVar[str] = "SL1003"


class WrongType(SettingsError):
    code: ClassVar[str] = "SL1004"


class BadValue(SettingsError):
    code: ClassVar[str] = "SL1005"


class BadPlacement(SettingsError):
    code: ClassVar[str] = "SL1006"


class DataFolderUnusable(SettingsError):
    code: ClassVar[str] = "SL1007"
