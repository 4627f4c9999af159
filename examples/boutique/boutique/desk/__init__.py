"""The desk: where the staff looks at orders before they are charged. It has no contract; the staff speaks HTTP.

A demonstration: a shop that sells would put a login before it.
"""
