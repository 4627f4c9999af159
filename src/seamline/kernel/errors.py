"""Errors that people read.

    SeamlineError                a fact, the offending value, the next step, a stable code
      SettingsError      SL1xxx  kernel/settings: the file or the environment is wrong
      ModuleError        SL2xxx  module/errors: a module, contract or wiring is wrong
      CallError          SL3xxx  module/errors: a call did not succeed (crosses seams)
      IdentityError      SL4xxx  mesh/errors: who is asking could not be proven, or may not
      RunError           SL5xxx  run/errors: starting, placing, switching, stopping
      GatewayError       SL6xxx  gateway/errors: the public side
      StoreError         SL7xxx  kernel/store/errors: databases and migrations
      TestingError       SL8xxx  testing/errors: the testing kit was misused
      CliError           SL9xxx  cli/errors: a command cannot do what was asked

The class decides what happens next; the code is what people search for.
"""

from __future__ import annotations

from typing import ClassVar


class SeamlineError(Exception):
    """An error with a stable code, a fact and a remedy.

    ``str(error)`` reads ``SL2104: place: fact. remedy``.
    """

    code: ClassVar[str] = "SL0000"

    def __init__(self, fact: str, remedy: str = "", *, place: str | None = None) -> None:
        super().__init__(fact, remedy)
        self.fact = fact
        self.remedy = remedy
        self.place = place

    def __str__(self) -> str:
        where = f"{self.place}: " if self.place else ""
        fact = self.fact if self.fact.endswith((".", "!", "?")) else f"{self.fact}."
        return f"{self.code}: {where}{fact} {self.remedy}".rstrip()

    def to_json(self) -> dict[str, str | None]:
        return {"code": self.code, "fact": self.fact, "remedy": self.remedy, "place": self.place}
