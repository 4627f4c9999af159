"""The inside of ads: a handful of lines, chosen by a checksum of the question."""

from __future__ import annotations

from zlib import crc32

from boutique.ads import Ad, Ads
from seamline import Module

module = Module("ads", provides=Ads)

_ADS: dict[str, tuple[Ad, ...]] = {
    "kitchen": (
        Ad("enamel-kettle", "Tea tastes better from something that sings."),
        Ad("linen-apron", "Flour happens. Linen forgives."),
    ),
    "table": (Ad("walnut-board", "One board, a loaf, four friends."),),
    "coffee": (Ad("stoneware-mug", "Good coffee deserves a good mug."),),
    "home": (Ad("wool-throw", "Sunday has a blanket. This one."),),
    "light": (Ad("beeswax-candle", "Switch off the ceiling. Light this."),),
    "garden": (Ad("watering-can", "The pots at the back are thirsty, too."),),
    "desk": (Ad("field-notebook", "Write it down before it flies away."),),
    "wear": (Ad("canvas-tote", "The market is open. Bring a bag."),),
    "travel": (Ad("bicycle-bell", "The scenic route is shorter by bicycle."),),
}
_ALL = tuple(ad for ads in _ADS.values() for ad in ads)


@module.service
class AdService(Ads):
    async def choose(self, categories: tuple[str, ...]) -> Ad:
        suitable = [ad for category in categories for ad in _ADS.get(category, ())] or _ALL
        return suitable[crc32(",".join(categories).encode()) % len(suitable)]
