"""Models and AI gateways where an application runs: which are hosted, which version answers, who tries them by hand.

In a worker: ``versions.py`` (its models, from the registry's files), ``gateways.py`` (its AI gateways) and ``room.py``
(what the supervisor asks of both). In the supervisor: ``rollouts.py`` (shares, guards, rolling back) and ``trials.py``.
How a model answers, and what an AI gateway does with a request, belong to :mod:`seamline.models`.
"""
