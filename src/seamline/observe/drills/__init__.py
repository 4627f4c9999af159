"""Fault drills: which faults there are, and how well detection and explanation found those that were planted.

What a fault does inside a worker is ``run.drilling``'s. Detection and explanation never read anything of this room.
"""
