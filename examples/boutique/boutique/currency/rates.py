"""The shop's own rates: units of each currency for one euro. Fixed, so that prices are repeatable."""

from __future__ import annotations

from decimal import Decimal
from types import MappingProxyType

_TABLE = """
AUD 1.6480   BGN 1.9558   BRL 6.2145   CAD 1.5230   CHF 0.9415   CNY 7.8340
CZK 24.815   DKK 7.4604   EUR 1        GBP 0.8460   HKD 8.4815   HUF 398.45
IDR 17784    ILS 3.9820   INR 94.215   ISK 143.50   JPY 169.85   KRW 1558.2
MXN 20.364   MYR 4.7120   NOK 11.684   NZD 1.8025   PHP 63.480   PLN 4.2735
RON 4.9770   SEK 11.190   SGD 1.4265   THB 36.905   TRY 42.160   USD 1.0875
ZAR 19.735
"""

_words = _TABLE.split()
PER_EURO = MappingProxyType({code: Decimal(rate) for code, rate in zip(_words[::2], _words[1::2], strict=True)})
SUPPORTED = tuple(sorted(PER_EURO))
