"""What an incident is compared with: times in which nothing was wrong."""

from __future__ import annotations

from collections.abc import Sequence

from tests.observe.synthetic import BEGIN_NS, Fault, Shop

from seamline.observe.detect.detector import Detector
from seamline.observe.detect.keeping import Incidents
from seamline.observe.explain.interface import Explanation
from seamline.observe.incidents import Symptom
from seamline.observe.records import Mark
from seamline.observe.windows import Window

S = 1_000_000_000


async def test_the_windows_of_an_incident_that_is_over_are_not_what_is_usual() -> None:
    """A second fault soon after a first is compared with the time without either."""
    compared: list[list[Window]] = []

    def explain(
        before: Sequence[Window], after: Sequence[Window], symptoms: Sequence[Symptom], marks: Sequence[Mark]
    ) -> Explanation:
        del after, symptoms, marks
        compared.append(list(before))
        return Explanation()

    shop = Shop(
        1, faults=(Fault("errors", "payments", 0.6, 200, 230), Fault("latency", "ads", 100, 330, 400)), habits=False
    )
    incidents = Incidents(Detector(), explain=explain)
    while shop.now_s < 370:
        incidents.feed(shop.window())
        await incidents.idle()
    await incidents.stop()
    of_first = [w for w in compared[-1] if BEGIN_NS + 202 * S <= w.at_ns < BEGIN_NS + 230 * S]
    assert len(compared) >= 2
    assert not of_first
    assert len(compared[-1]) > 80
