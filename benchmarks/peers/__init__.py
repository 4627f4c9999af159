"""The others: each written the way its own documentation and a competent user of it would.

No straw men: production servers, C parsers, uvloop where the peer can use it, connections kept and pooled,
access logs off, one warm process, the same core, the same payload and the same mTLS as ours.
"""
