"""Which version of a model answers: shares, keys that stay, shadows, canaries that are rolled back, comparisons.

    split       shares, and how they change
    route       the split at work in one process: who answers, and what came of it
    compare     whether a shadow said the same
    sequential  tests that may be looked at at any time
    guard       when a canary is worse than the champion
    keeper      splits on disk, with who changed them and why

The files of versions do not belong here: see ``models/registry``. What serves a version is ``models/serving``.
"""
