"""The desk: where the staff looks at orders before they are charged. It has no contract; the staff speaks HTTP.

Policy lets in who is signed in and has the role ``support``.
"""
