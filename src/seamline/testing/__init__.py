"""For tests of applications: run one in every topology, break it, fake parts of it, move its clock, compare.

Belongs here: the pytest plugin, the running of an application under test, what is done to it, transcripts.
Does not belong here: assertions about one application, and anything that a running system needs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seamline.kernel.clock import ManualClock
from seamline.testing.errors import (
    BadFakeError,
    LeftoverError,
    NoApplicationError,
    NoSuchTargetError,
    NoSuchTopologyError,
    NotHereError,
    NotSignedInError,
    TestingError,
    TooSlowError,
    TranscriptDiffers,
)
from seamline.testing.http import HttpClient, Response
from seamline.testing.transcript import Transcript, canonical

if TYPE_CHECKING:
    from seamline.testing.app import AppClock, TopologyApp

__all__ = [
    "AppClock",
    "BadFakeError",
    "HttpClient",
    "LeftoverError",
    "ManualClock",
    "NoApplicationError",
    "NoSuchTargetError",
    "NoSuchTopologyError",
    "NotHereError",
    "NotSignedInError",
    "Response",
    "TestingError",
    "TooSlowError",
    "TopologyApp",
    "Transcript",
    "TranscriptDiffers",
    "canonical",
]


def __getattr__(name: str) -> Any:
    if name in ("AppClock", "TopologyApp"):  # they bring half of the platform, and every pytest loads the plugin
        from seamline.testing import app

        return getattr(app, name)
    message = f"module 'seamline.testing' has no attribute {name!r}"
    raise AttributeError(message)
