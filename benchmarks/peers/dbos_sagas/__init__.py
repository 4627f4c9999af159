"""DBOS: a workflow of three steps, as its documentation writes one."""
