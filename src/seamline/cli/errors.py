"""What can go wrong before or around a verb.

CliError                    SL9000  a command cannot do what was asked
  NoApplicationError        SL9001  no seamline.toml here or above
  ArgumentError             SL9002  an argument says something that cannot be meant
  FolderTakenError          SL9003  the folder to write into has something in it
  UnknownCodeError          SL9004  no error carries this code
  NotAnsweringError         SL9005  the application did not come up, or does not answer
  ScenarioError             SL9006  the load scenario of the application cannot be used
  BaselineError             SL9007  the contracts as they were cannot be read
  UnknownIncidentError      SL9008  no incident has this id
"""

from __future__ import annotations

from seamline.kernel.errors import SeamlineError


class CliError(SeamlineError):
    """A command cannot do what was asked of it."""

    code = "SL9000"


class NoApplicationError(CliError):
    """No seamline.toml lies in the folder given, or in the current folder and those above it.

    Go to the application's folder, or name it with ``--app``. ``seamline new shop`` writes a new one.
    """

    code = "SL9001"


class ArgumentError(CliError):
    """An argument was understood but cannot be meant: ``orders=many`` where a number belongs."""

    code = "SL9002"


class FolderTakenError(CliError):
    """``seamline new`` writes into an empty or new folder only, so that it never overwrites your work."""

    code = "SL9003"


class UnknownCodeError(CliError):
    """No error of this version carries the code that was asked about."""

    code = "SL9004"


class NotAnsweringError(CliError):
    """The application was started in the background but ended, or was not ready in time.

    Its last words are shown with the error; the rest stands in ``run/up.log`` of the data folder.
    """

    code = "SL9005"


class ScenarioError(CliError):
    """``<package>.load`` has no usable ``scenario``.

    It is a list of ``(weight, name, step)``, where ``step`` is an async function of one ``Shopper``.
    """

    code = "SL9006"


class BaselineError(CliError):
    """The contracts as they were, at a git reference or in ``contracts.lock.json``, cannot be read.

    ``seamline contracts diff`` loads the application as it was at the reference, with what is installed now.
    ``seamline contracts lock`` writes the file.
    """

    code = "SL9007"


class UnknownIncidentError(CliError):
    """No incident that is kept has this id; ``seamline incidents`` lists those that are."""

    code = "SL9008"
