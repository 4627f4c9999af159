"""Shared Signals (OpenID SSF 1.0): hearing from others, and telling them, that what was good is so no more.

Belongs here: security event tokens (RFC 8417), their delivery by push (RFC 8935) and poll (RFC 8936), the events of
CAEP 1.0 and RISC 1.0 in our words, streams and who has not had what. Does not belong here: what becomes of an entry
once it is known (``mesh.identity.revocation``).
"""
