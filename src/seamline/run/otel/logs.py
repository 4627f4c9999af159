"""Records given to OpenTelemetry's logs go the way of all others: through ``logging``, with module and trace."""

from __future__ import annotations

import logging
from typing import Any, Final

from opentelemetry import _logs

from seamline.run.otel.values import clean, clean_all, shown

_LEVELS: Final = ((21, logging.CRITICAL), (17, logging.ERROR), (13, logging.WARNING), (9, logging.INFO))


class UserLogger(_logs.Logger):
    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._logger = logging.getLogger(name)

    def emit(self, record: _logs.LogRecord | None = None, **given: Any) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  # wider
        """Takes a record, or what one is made of."""
        made = record or _logs.LogRecord(**given)
        extra: dict[str, Any] = {}
        if made.attributes:
            extra["attributes"] = clean_all(made.attributes)
        event = getattr(made, "event_name", None)
        if event:
            extra["event_name"] = str(event)
        error = getattr(made, "exception", None)
        body = made.body if isinstance(made.body, str) else shown(clean(made.body))
        self._logger.log(
            _level(made.severity_number), "%s", body if made.body is not None else (event or ""),
            extra=extra, exc_info=error if isinstance(error, BaseException) else None,
        )  # fmt: skip

    def enabled(self, **given: Any) -> bool:
        return self._logger.isEnabledFor(_level(given.get("severity_number")))


class LoggerProvider(_logs.LoggerProvider):
    def get_logger(self, name: str, *_: Any, **__: Any) -> UserLogger:
        return UserLogger(name)


def _level(severity: _logs.SeverityNumber | None) -> int:
    number = severity.value if severity is not None else 9
    return next((level for least, level in _LEVELS if number >= least), logging.DEBUG)
