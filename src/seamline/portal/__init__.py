"""The web pages on which people see an application run and act on it, and the process that serves them.

It shows what ``observe`` keeps and asks the supervisor for everything that changes something. No rule of the
application lives here.
"""
