"""Templates, and how figures, times and names are written in them."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Any, Final
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from seamline.portal.assets import Assets
from seamline.portal.showing import cut, quoted, without

_CODE: Final = re.compile(r"`{1,2}([^`]+)`{1,2}")
_NONE: Final = "\N{EN DASH}"
_UNITS_NS: Final = ((1e9, "s"), (1e6, "ms"), (1e3, "\N{MICRO SIGN}s"), (1.0, "ns"))


def environment(assets: Assets) -> Environment:
    """Everything is escaped; a name that a page forgot to give is an error."""
    found = Environment(
        loader=PackageLoader("seamline.portal"), autoescape=True, undefined=StrictUndefined, trim_blocks=True,
        lstrip_blocks=True,
    )  # fmt: skip
    _names(found.globals).update(asset=assets.url, icon=partial(icon, assets), sparkline=sparkline, url=url)
    _names(found.filters).update(
        duration=duration, ms=ms, count=count, rate=rate, percent=percent, size=size, when=when, day=day, bdi=bdi,
        prose=prose, data=data, pretty=pretty,
    )  # fmt: skip
    _names(found.globals).update(quoted=quoted, without=without)
    _names(found.filters).update(cut=cut, figure=figure, num_column=num_column)
    return found


def _names(known: Any) -> dict[str, Any]:
    return known


def icon(assets: Assets, name: str) -> Markup:
    """A symbol of ``static/icons.svg``; it says nothing to a screen reader."""
    return Markup('<svg class="icon" aria-hidden="true"><use href="{}#{}"></use></svg>').format(
        assets.url("icons.svg"), name
    )


def url(path: str, **query: Any) -> str:
    """``path`` with a query, without what is empty."""
    kept = {key: value for key, value in query.items() if value not in (None, "", [])}
    return f"{path}?{urlencode(kept, doseq=True)}" if kept else path


def bdi(text: object) -> Markup:
    """A name or a text of others: escaped, and kept from turning round what stands beside it."""
    return Markup("<bdi>{}</bdi>").format(text)


def prose(text: object) -> Markup:
    """A text of others in which `code` stands in backticks."""
    parts = _CODE.split(str(text))
    return bdi(Markup().join(Markup("<code>{}</code>").format(each) if i % 2 else each for i, each in enumerate(parts)))


def duration(ns: float | None) -> str:
    """Nanoseconds with three digits that matter: ``1.25 ms``."""
    if ns is None or not math.isfinite(ns):
        return _NONE
    if abs(ns) >= 120e9:
        minutes, seconds = divmod(abs(ns) / 1e9, 60)
        hours, minutes = divmod(int(minutes), 60)
        days, hours = divmod(hours, 24)
        if days:
            return f"{days} d {hours} h"
        return f"{hours} h {minutes} min" if hours else f"{minutes} min {seconds:.0f} s"
    factor, unit = next((each for each in _UNITS_NS if abs(ns) >= each[0]), _UNITS_NS[-1])
    return f"{_figure(ns / factor)} {unit}"


def ms(value: float | None) -> str:
    """Milliseconds, likewise."""
    return _NONE if value is None else duration(value * 1e6)


def count(value: float | None) -> str:
    """``1,234``, ``12.3 k``, ``4.56 M``."""
    if value is None or not math.isfinite(value):
        return _NONE
    for factor, unit in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= factor:
            return f"{_figure(value / (1e3 if factor == 1e4 else factor))}{unit}"
    return f"{value:,.0f}" if float(value).is_integer() or abs(value) >= 100 else _figure(value)


def rate(per_s: float | None) -> str:
    return _NONE if per_s is None else f"{count(per_s)}/s"


def figure(value: float | None, unit: str) -> str:
    """A value in its unit, as the charts write it."""
    match unit:
        case "ms":
            return ms(value)
        case "s":
            return duration(None if value is None else value * 1e9)
        case "ratio":
            return percent(value)
        case "By":
            return size(value)
        case "/s":
            return rate(value)
        case _:
            return count(value) if unit in {"", "1"} or value is None else f"{count(value)} {unit}"


def num_column(name: str) -> tuple[str, str]:
    """The head of a column of figures, for ``ui.table``."""
    return name, "num"


def percent(share: float | None) -> str:
    if share is None or not math.isfinite(share):
        return _NONE
    value = share * 100
    if value in {0, 100}:
        return f"{value:.0f} %"
    return "< 0.01 %" if 0 < value < 0.01 else f"{value:.{2 if value < 1 or value > 99 else 1}f} %"


def size(number: float | None) -> str:
    """Bytes: ``12.3 MB``."""
    if number is None:
        return _NONE
    for factor, unit in ((1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if abs(number) >= factor:
            return f"{_figure(number / factor)} {unit}"
    return f"{number:.0f} B"


def when(ns: int | None) -> Markup | str:
    """A moment; the browser writes it in its own time zone, and how long ago it is as a hint."""
    if not ns:
        return _NONE
    at = _moment(ns)
    if at is None:
        return _NONE
    return Markup('<time datetime="{}">{}</time>').format(at.isoformat(), at.strftime("%H:%M:%S UTC"))


def day(ns: int | None) -> Markup | str:
    """A moment with its date."""
    at = _moment(ns) if ns else None
    if at is None:
        return _NONE
    return Markup('<time datetime="{}" data-day>{}</time>').format(at.isoformat(), at.strftime("%Y-%m-%d %H:%M UTC"))


def _moment(ns: int) -> datetime | None:
    try:
        return datetime.fromtimestamp(ns / 1e9, UTC)
    except (OverflowError, ValueError, OSError):
        return None


def data(value: Any) -> str:
    """JSON for a script, in a ``data-`` attribute: ``data-points="{{ points|data }}"``."""
    return json.dumps(value, default=str, separators=(",", ":"))


def pretty(value: Any) -> str:
    """JSON for people."""
    return json.dumps(value, indent=2, ensure_ascii=False, default=str)


def sparkline(values: Sequence[float | None], *, label: str = "", width: int = 96, height: int = 24) -> Markup:
    """A small line of what was, oldest first, gaps where nothing is known; ``label`` is what it is called."""
    known = [each for each in values if each is not None and math.isfinite(each)]
    highest = max(known, default=0.0) or 1.0
    step = width / max(len(values) - 1, 1)
    parts: list[str] = []
    pen_down = False
    for index, value in enumerate(values):
        if value is None or not math.isfinite(value):
            pen_down = False
            continue
        y = height - 2 - (height - 4) * max(value, 0.0) / highest
        parts.append(f"{'L' if pen_down else 'M'}{index * step:.1f} {y:.1f}")
        pen_down = True
    return Markup(
        '<svg class="spark" viewBox="0 0 {w} {h}" width="{w}" height="{h}" role="img" aria-label="{label}"'
        ' preserveAspectRatio="none"><path d="{d}"></path></svg>'
    ).format(w=width, h=height, label=label or "course over time", d=" ".join(parts))


def _figure(value: float) -> str:
    """Three digits that matter."""
    magnitude = abs(value)
    if magnitude >= 100:
        return f"{value:,.0f}"
    text = f"{value:.1f}" if magnitude >= 10 else f"{value:.2f}"
    return text.rstrip("0").rstrip(".") or "0"
