"""What goes wrong in the testing kit itself; what the application does wrong is told by its own errors.

TestingError                SL8000  the testing kit was misused, or could not do its work
  NoApplicationError        SL8001  nothing says which application is under test
  NoSuchTopologyError       SL8002  a topology is asked for that does not exist
  NotHereError              SL8003  the topology cannot do that: one process cannot be killed and live
  NoSuchTargetError         SL8004  a module, contract or method that the application does not have
  BadFakeError              SL8005  the stand-in does not do what the contract says
  TooSlowError              SL8006  a start, a stop or a request did not end in its time
  LeftoverError             SL8007  a process outlived its test
  TranscriptDiffers         SL8008  two topologies, or a topology and the golden file, did not do the same
  NotSignedInError          SL8009  the development identity provider did not sign the user in
"""

from __future__ import annotations

from typing import ClassVar

from seamline.kernel.errors import SeamlineError


class TestingError(SeamlineError):
    __test__ = False  # pytest collects classes whose name begins with Test
    code: ClassVar[str] = "SL8000"


class NoApplicationError(TestingError):
    code: ClassVar[str] = "SL8001"


class NoSuchTopologyError(TestingError):
    code: ClassVar[str] = "SL8002"


class NotHereError(TestingError):
    code: ClassVar[str] = "SL8003"


class NoSuchTargetError(TestingError):
    code: ClassVar[str] = "SL8004"


class BadFakeError(TestingError):
    code: ClassVar[str] = "SL8005"


class TooSlowError(TestingError):
    code: ClassVar[str] = "SL8006"


class LeftoverError(TestingError):
    code: ClassVar[str] = "SL8007"


class TranscriptDiffers(TestingError, AssertionError):
    """The difference is in the fact, line by line."""

    code: ClassVar[str] = "SL8008"


class NotSignedInError(TestingError):
    code: ClassVar[str] = "SL8009"
