"""Models: what they are asked, what answers, and who lets calls in.

A class that is a model is declared with :mod:`seamline.module.models`. Here are the words (``chat``, ``engine``), its
engines and the place where it runs (``runtime``, ``serving``, ``runtimes``), its files (``formats``, ``registry``),
which of its versions answers (``rollout``), engines elsewhere (``remote``, ``wire``), the AI gateway (``gateway``),
what it is told of somebody's past (``features``), and whether it is still good (``watch``). How processes of an
application come to host all this is :mod:`seamline.run.models`.
"""
