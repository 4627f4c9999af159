"""One version of a model in one process: its queue, its batches, and its place: the loop, threads, or own processes.

Which version is asked is decided above: see ``models/runtime.py`` and ``models/rollout``.
"""
