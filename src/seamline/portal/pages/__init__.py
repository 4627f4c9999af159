"""The pages, one file each: one that has a ``page`` (``portal.shell.Page``) is served, and in the navigation."""
