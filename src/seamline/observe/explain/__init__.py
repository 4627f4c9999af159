"""Why an incident began: suspects ranked over the call graph, each with evidence that a person can check.

:func:`explain` compares the windows before with those after and reads nothing else. :func:`summarise` tells it in
sentences: by a template, or by a language model that is given the evidence and nothing else. That something was
changed by a drill is none of the evidence.
"""

from seamline.observe.explain.interface import Explanation, Profiles, Traces
from seamline.observe.explain.prose import Model, summarise
from seamline.observe.explain.ranking import explain
from seamline.observe.explain.summary import summary_of

__all__ = ["Explanation", "Model", "Profiles", "Traces", "explain", "summarise", "summary_of"]
