"""Who keeps the splits: each change is on disk, with who and why, before anybody hears of it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

import msgspec

from seamline.kernel.settings import ModelsSettings
from seamline.models.registry.book import Book, Changing
from seamline.models.rollout.errors import NoWayBackError
from seamline.models.rollout.guard import Seen, Verdict, judge
from seamline.models.rollout.split import Split, checked, default_split, promoted, with_shares, without_canaries

GUARD: Final = "guard"
"""Who rolls back when nobody does."""
_SPLITTING: Final = ("promote", "weights", "shadow")
_BACK: Final = "rollback"


class Keeper:
    """Changes splits. What it returns holds from now on, and outlives this process.

    Args:
        book: the registry's.
        settings: what holds for contracts of which nothing was said.
    """

    def __init__(self, book: Book, settings: ModelsSettings) -> None:
        self._book = book
        self._settings = settings

    def splits(self) -> dict[str, Split]:
        """All that somebody has changed, by contract."""
        return {
            contract: msgspec.structs.replace(msgspec.convert(split, Split), revision=revision)
            for contract, (revision, split) in self._book.splits().items()
        }

    def promote(self, contract: str, version: str, declared: Sequence[str], *, who: str, why: str = "") -> Split:
        """That version answers everything, and is the champion. Raises UnknownVersionError."""
        with self._book.change() as book:
            before = self._now(book, contract, declared)
            return self._set(
                book, contract, "promote", before, checked(promoted(before, version), contract, declared), who, why
            )

    def weigh(
        self, contract: str, shares: Mapping[str, float], declared: Sequence[str], *, who: str, why: str = ""
    ) -> Split:
        """These versions have these shares (of 1), the champion the rest.

        Raises UnknownVersionError, BadSplitError.
        """
        with self._book.change() as book:
            before = self._now(book, contract, declared)
            after = checked(with_shares(before, shares), contract, declared)
            return self._set(book, contract, "weights", before, after, who, why)

    def shadow(
        self, contract: str, versions: Sequence[str], declared: Sequence[str], *, who: str, why: str = ""
    ) -> Split:
        """These are asked, too; none when empty. Raises UnknownVersionError."""
        with self._book.change() as book:
            before = self._now(book, contract, declared)
            after = checked(msgspec.structs.replace(before, shadow=[*dict.fromkeys(versions)]), contract, declared)
            return self._set(book, contract, "shadow", before, after, who, why)

    def roll_back(self, contract: str, declared: Sequence[str], *, who: str, why: str = "") -> Split:
        """What held before the last change that was not taken back. Raises NoWayBackError."""
        with self._book.change() as book:
            now = self._now(book, contract, declared)
            for _, _, before, after in book.past(contract, _SPLITTING):
                if _same(msgspec.convert(after, Split), now):
                    earlier = checked(msgspec.convert(before, Split), contract, declared)
                    return self._set(book, contract, _BACK, now, earlier, who, why)
        raise NoWayBackError(f"the split of {contract} was never another", "`seamline models show` has its past.")

    def take_back(self, contract: str, split: Split, verdict: Verdict) -> Split | None:
        """The canaries of a split answer nothing more; None if another split holds already."""
        with self._book.change() as book:
            if book.revision(contract) != split.revision:
                return None
            return self._set(book, contract, _BACK, split, without_canaries(split), GUARD, verdict.said)

    def judged(self, contract: str, split: Split, seen: Iterable[Seen]) -> Verdict | None:
        """Whether what all processes have seen is enough; see :func:`judge`."""
        return judge(split, self._settings.of(contract).guard, seen)

    def _now(self, book: Changing, contract: str, declared: Sequence[str]) -> Split:
        known = book.split(contract)
        return msgspec.convert(known, Split) if known else default_split(self._settings.of(contract), declared)

    def _set(self, book: Changing, contract: str, what: str, before: Split, after: Split, who: str, why: str) -> Split:
        plain = [msgspec.structs.replace(each, revision=0).to_json() for each in (before, after)]
        revision = book.note(what, contract, *plain, who=who, why=why)
        book.set_split(contract, revision, plain[1])
        for alias, version in (("champion", after.champion), ("challenger", next(iter(after.canaries), None))):
            if version is None or book.manifest(contract, version) is not None:
                book.set_alias(contract, alias, version)
        return msgspec.structs.replace(after, revision=revision)


def _same(one: Split, other: Split) -> bool:
    return msgspec.structs.replace(one, revision=0) == msgspec.structs.replace(other, revision=0)
