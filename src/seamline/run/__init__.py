"""A topology made real: start, place, supervise, switch, drain.

The supervisor and its workers live here, and the host that a worker is built around. How a call travels belongs to
the mesh, how the public comes in to the gateway, and how any of it is shown to the command line.
"""
