"""Estimators of scikit-learn, kept by skops: a file that holds values and names of types, and no code."""

from __future__ import annotations

import zipfile
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from seamline.models.extras import required
from seamline.models.formats.errors import WeightsError

_EXTRA = "models-sklearn"


class Estimator:
    """An estimator, loaded. Use it in a model's ``load``; ``skops.io.dump`` writes such a file.

    Args:
        path: of the file.
        trusted: types beyond those that skops trusts by itself which the file may hold, by their full names. Read what
            the refusal names before you trust it: making such a value may run that type's code.

    Raises:
        ExtraMissingError: the extra ``models-sklearn`` is not installed.
        WeightsError: the file is damaged, or holds types that are not trusted.
        OSError: there is no such file.
    """

    def __init__(self, path: Path | str, *, trusted: Collection[str] = ()) -> None:
        self._numpy = required("numpy")
        required("sklearn", _EXTRA)
        skops = required("skops.io", _EXTRA)
        try:
            strange = sorted(set(skops.get_untrusted_types(file=path)) - set(trusted))
            if strange:
                raise WeightsError(
                    f"{path} holds {', '.join(strange)}, which is not trusted",
                    "Name in `trusted` what you know to be harmless, or train it without.",
                )
            self._estimator: Any = skops.load(path, trusted=list(trusted))
        except (zipfile.BadZipFile, KeyError, ValueError, TypeError, AttributeError) as error:
            raise WeightsError(
                f"{path} cannot be read as an estimator: {error}", "Write it again with `skops.io.dump`."
            ) from error

    def predict(self, rows: Sequence[Sequence[float]]) -> list[Any]:
        """The estimator's word on each row."""
        return self._estimator.predict(self._numpy.asarray(rows)).tolist()

    def probabilities(self, rows: Sequence[Sequence[float]]) -> list[list[float]]:
        """Of each row, how likely each of the classes is, in their order (``classes``)."""
        return self._estimator.predict_proba(self._numpy.asarray(rows)).tolist()

    @property
    def classes(self) -> list[Any]:
        """Of a classifier."""
        return self._estimator.classes_.tolist()
