"""Seamline's side of the micro rows: an application of two modules, one of which calls the other."""
