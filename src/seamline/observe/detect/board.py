"""Which symptoms there are now, and what the last window changed about them."""

from __future__ import annotations

from seamline.observe.incidents import Symptom


class Board:
    """Where all that watches writes: ``active`` by series, ``begun`` and ``ended`` since the last :meth:`turn`."""

    def __init__(self) -> None:
        self.active: dict[str, Symptom] = {}
        self.begun: list[Symptom] = []
        self.ended: list[Symptom] = []

    def begin(self, symptom: Symptom) -> None:
        self.active[symptom.series] = symptom
        self.begun.append(symptom)

    def end(self, series: str) -> None:
        """Nothing where there is none."""
        symptom = self.active.pop(series, None)
        if symptom is not None:
            self.ended.append(symptom)

    def turn(self) -> None:
        self.begun, self.ended = [], []
