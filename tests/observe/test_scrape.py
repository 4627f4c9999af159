"""Prometheus fetches at OTLP's address: all workloads, or one."""

from __future__ import annotations

import urllib.error
import urllib.request
from asyncio import to_thread

import pytest
from prometheus_client.parser import text_string_to_metric_families

from seamline.kernel.settings.observe import ObserveSettings
from seamline.observe.otlp import OtlpReceiver
from seamline.observe.prometheus import Totals
from seamline.observe.records import Batch, Source, Traffic


def told(workload: str, calls: int) -> Batch:
    return Batch(Source(workload), 10**18, 10**9, traffic=[Traffic("shop", "cart", "Cart.add", "client", calls)])


async def test_a_scrape_has_what_was_told():
    """By workload and all together, in the format that is asked for; nothing for browsers, POSTs or other paths."""
    totals = Totals()
    settings = ObserveSettings(otlp_listen="127.0.0.1:0")
    receiver = OtlpReceiver(settings, lambda _: None, metrics=totals.render)
    await receiver.start()
    assert receiver.address is not None
    url = f"http://127.0.0.1:{receiver.address[1]}"

    def fetch(path: str, **headers: str) -> tuple[str, dict[str, float]]:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        with urllib.request.urlopen(urllib.request.Request(url + path, headers=named), timeout=20) as answer:
            text = answer.read().decode()
            families = text_string_to_metric_families(text.replace("# EOF\n", ""))
            counts = [
                each for family in families for each in family.samples if each.name.endswith("duration_seconds_count")
            ]
            return answer.headers["content-type"], {each.labels["workload"]: each.value for each in counts}

    try:
        totals.add(told("till", 3))
        totals.add(told("window", 4))
        totals.add(told("window", 5))
        kind, found = await to_thread(fetch, "/metrics")
        assert (kind.split(";")[0], found) == ("text/plain", {"till": 3, "window": 9})
        assert (await to_thread(fetch, "/metrics/window"))[1] == {"window": 9}
        assert (await to_thread(fetch, "/metrics/nobody"))[1] == {}
        kind, _ = await to_thread(lambda: fetch("/metrics", accept="application/openmetrics-text"))
        assert kind.startswith("application/openmetrics-text")
        for path, headers, status in (
            ("/metrics", {"sec_fetch_site": "same-origin"}, 403),
            ("/metrics", {"origin": url}, 403),
            ("/metricsx", {}, 404),
        ):
            with pytest.raises(urllib.error.HTTPError) as refused:
                await to_thread(fetch, path, **headers)
            assert refused.value.code == status
            refused.value.close()
    finally:
        await receiver.stop()
