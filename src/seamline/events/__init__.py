"""Events: a durable log for each module, the outbox that is that log, consumers with an inbox, and ways to brokers.

An event is written in the transaction of the state it tells of. Redelivery after a failure is this room's work; the
retry of a call is the mesh's, the retry of a step the sagas'.
"""
