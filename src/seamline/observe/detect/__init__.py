"""What is noticed: changes of windows against their own past, and broken promises; and the incidents they add up to.

``Detector`` finds symptoms, ``Promises`` burning error budgets, ``Incidents`` puts together what has one cause, keeps
it and tells of it. Why it happened is ``observe.explain``'s work.
"""
