"""Where in a text there are data of people, and secrets.

Every pattern has bounds and does not go back over what it has taken, so that a text cannot make it slow; what looks
right is then checked by what is known of it: checksums of cards (ISO 7812) and IBANs (ISO 13616), addresses by the
standard library.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Iterator, Sequence
from typing import Final, NamedTuple

KINDS: Final = ("email", "phone", "iban", "card", "ip", "ssn", "secret")
MATCH_MAX: Final = 512
"""Nothing that is found is longer; of a longer secret the beginning is."""

_EMAIL: Final = re.compile(r"(?<![\w.%+-])[\w.%+-]{1,64}+@(?:[\w-]{1,63}+\.){1,8}[^\W\d_]{2,24}+")
_PHONE: Final = re.compile(r"(?<![\w+.,-])(?:\+|\(\+?\d{1,5}\)|0|\d{3}[ .-])[\d ()./-]{6,24}")
_IBAN: Final = re.compile(r"(?<!\w)[A-Z]{2}\d{2}(?=[ -]?[A-Z0-9])")
_CARD: Final = re.compile(r"(?<![\d.])[2-6]\d{3}(?:[ -]?\d){9,15}+(?![\d])")
_IPV4: Final = re.compile(r"(?<![\w.])\d{1,3}+(?:\.\d{1,3}+){3}+(?![\w]|\.\d)")
_IPV6: Final = re.compile(r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}+:){2,7}+[0-9A-Fa-f]{0,4}+(?![\w:])")
_SSN: Final = re.compile(r"(?<![\d-])(?!000|666|9)\d{3}-(?!00)\d{2}-(?!0000)\d{4}(?![\d-])")
_SECRET: Final = re.compile(
    r"(?<![A-Za-z0-9])(?:"
    r"sk-[A-Za-z0-9_-]{20,400}+"
    r"|(?:ghp|gho|ghu|ghs|ghr)_[A-Za-z0-9]{30,255}+|github_pat_[A-Za-z0-9_]{22,255}+|glpat-[A-Za-z0-9_-]{20,100}+"
    r"|(?:AKIA|ASIA)[A-Z0-9]{16}(?![A-Z0-9])|AIza[A-Za-z0-9_-]{35}"
    r"|xox[abeprs]-[A-Za-z0-9-]{10,250}+|(?:sk|rk|pk)_(?:live|test)_[A-Za-z0-9]{10,250}+|hf_[A-Za-z0-9]{30,100}+"
    r"|eyJ[A-Za-z0-9_-]{10,400}+(?:\.[A-Za-z0-9_-]{5,400}+){1,2}+"
    r")|-----BEGIN [A-Z ]{0,30}?PRIVATE KEY-----[A-Za-z0-9+/=\s]{0,8192}+(?:-----END [A-Z ]{0,30}+-----)?"
)
_SECRET_SIGNS: Final = (
    "sk-", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_pat_", "glpat-", "AKIA", "ASIA", "AIza", "xox", "_live_",
    "_test_", "hf_", "eyJ", "-----BEGIN ",
)  # fmt: skip
_TELLING: Final = re.compile(r"[0-9@:_-]")
_IBANS: Final = (
    (15, "NO"),
    (16, "BE"),
    (18, "DK FI FO GL NL"),
    (19, "MK SI"),
    (20, "AT BA EE KZ LT LU XK"),
    (21, "CH HR LI LV"),
    (22, "BG BH CR DE GB GE IE ME RS VA"),
    (23, "AE GI IL IQ TL"),
    (24, "AD CZ ES MD PK RO SA SE SK TN VG"),
    (25, "PT ST"),
    (26, "IS TR"),
    (27, "FR GR IT MC MR SM"),
    (28, "AL AZ BY CY DO GT HU LB PL SV"),
    (29, "BR EG PS QA UA"),
    (30, "JO KW MU"),
    (31, "MT SC"),
    (32, "LC"),
)
_IBAN_LENGTHS: Final = {country: length for length, countries in _IBANS for country in countries.split()}
_GROUP: Final = re.compile(r"\d+")
_THREE_GROUPS: Final = re.compile(r"\d{3}[ .-]\d{3}[ .-]\d{4}")
_THREE_TWO_FOUR: Final = re.compile(r"\d{3}-\d{2}-\d{4}")
_CARD_LENGTHS: Final = {2: (16,), 3: (14, 15), 4: (13, 16, 19), 5: (16,), 6: (16, 17, 18, 19)}


class Found(NamedTuple):
    begins: int
    ends: int
    kind: str


def find(text: str, kinds: Sequence[str] = KINDS) -> list[Found]:
    """In order, none over another; where two would be, the one that begins first, and the longer of these."""
    found: list[Found] = []
    if _nothing(text):
        return found
    digits = sum(map(text.count, "0123456789"))
    for kind in kinds:
        may_have, search = _FINDERS[kind]
        if may_have(text, digits):
            found += [Found(begins, ends, kind) for begins, ends in search(text)]
    if len(found) < 2:
        return found
    rank = {kind: place for place, kind in enumerate(_PRECEDENCE)}
    found.sort(key=lambda each: (each.begins, -each.ends, rank[each.kind]))
    kept: list[Found] = []
    for each in found:
        if not kept or each.begins >= kept[-1].ends:
            kept.append(each)
    return kept


def _nothing(text: str) -> bool:
    """Whether a text has none of the letters that all which is looked for has; tells it of most texts, for little."""
    return _TELLING.search(text) is None and not (
        "AKIA" in text or "ASIA" in text or "AIza" in text or "eyJ" in text
    )  # fmt: skip


_PRECEDENCE: Final = ("secret", "email", "iban", "card", "ssn", "ip", "phone")


def _plain(pattern: re.Pattern[str]) -> Callable[[str], Iterator[tuple[int, int]]]:
    return lambda text: (match.span() for match in pattern.finditer(text))


def _phones(text: str) -> Iterator[tuple[int, int]]:
    for match in _PHONE.finditer(text):
        taken = match[0].rstrip(" ()./-")
        ends = match.start() + len(taken)
        after = text[ends : ends + 1]
        if not (after.isalnum() or after == "_") and _is_phone(taken):
            yield match.start(), ends


def _is_phone(taken: str) -> bool:
    digits = sum(letter.isdigit() for letter in taken)
    if taken[0] == "+":
        return 7 <= digits <= 15
    if _THREE_TWO_FOUR.fullmatch(taken):
        return False
    if taken[0] in "(0":
        # 0.25 is a number, and one group alone an order's.
        return 8 <= digits <= 13 and taken[1:2] not in (".", "") and len(_GROUP.findall(taken)) > 1
    return _THREE_GROUPS.fullmatch(taken) is not None


def _ibans(text: str) -> Iterator[tuple[int, int]]:
    for match in _IBAN.finditer(text):
        length = _IBAN_LENGTHS.get(match[0][:2], 0)
        letters: list[str] = []
        place = match.start()
        while len(letters) < length and place < len(text):
            letter = text[place]
            if letter.isascii() and (letter.isdigit() or letter.isupper()):
                letters.append(letter)
            elif letter not in " -":
                break
            place += 1
        if length and len(letters) == length and not text[place : place + 1].isalnum() and _is_97(letters):
            yield match.start(), place


def _is_97(letters: list[str]) -> bool:
    return int("".join(str(int(letter, 36)) for letter in letters[4:] + letters[:4])) % 97 == 1


def _cards(text: str) -> Iterator[tuple[int, int]]:
    for match in _CARD.finditer(text):
        digits = [int(letter) for letter in match[0] if letter.isdigit()]
        if len(digits) not in _CARD_LENGTHS[digits[0]]:
            continue
        doubled = [sum(divmod(2 * digit, 10)) for digit in digits[-2::-2]]
        if (sum(digits[-1::-2]) + sum(doubled)) % 10 == 0 and len(set(digits)) > 1:
            yield match.span()


def _addresses(text: str) -> Iterator[tuple[int, int]]:
    for pattern in (_IPV4, _IPV6):
        if pattern is _IPV6 and text.count(":") < 2:
            return
        for match in pattern.finditer(text):
            try:
                address = ipaddress.ip_address(match[0])
            except ValueError:
                continue
            if not address.is_loopback and not address.is_unspecified:
                yield match.span()


def _may_be_secret(text: str, _: int) -> bool:
    return any(sign in text for sign in _SECRET_SIGNS)


_Finder = tuple[Callable[[str, int], bool], Callable[[str], Iterator[tuple[int, int]]]]
_FINDERS: Final[dict[str, _Finder]] = {
    "email": (lambda text, _: "@" in text, _plain(_EMAIL)),
    "phone": (lambda _, digits: digits >= 7, _phones),
    "iban": (lambda _, digits: digits >= 8, _ibans),
    "card": (lambda _, digits: digits >= 13, _cards),
    "ip": (lambda text, digits: (digits >= 4 and text.count(".") >= 3) or text.count(":") >= 2, _addresses),
    "ssn": (lambda text, digits: digits >= 9 and text.count("-") >= 2, _plain(_SSN)),
    "secret": (_may_be_secret, _plain(_SECRET)),
}
"""For each kind, whether a text with so many digits may have it at all, and the search."""
