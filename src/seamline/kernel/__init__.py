"""What every room stands on: errors, settings, clock, lifetime, codec, signal, wire, store.

Nothing here knows what a module, a contract or a policy is.
"""
