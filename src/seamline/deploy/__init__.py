"""What an application needs of the world around it to run there.

Belongs here: Envoy beside a service in another language. Does not belong here: what workers are and how they are
started (``run``), and whatever a call means (``mesh``).
"""
