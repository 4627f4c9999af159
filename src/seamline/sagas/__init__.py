"""Sagas: functions whose steps are journalled, so that they go on after a crash and are undone when they fail.

The retry of a step is this room's work; the retry of a call within a step is the mesh's.
"""
