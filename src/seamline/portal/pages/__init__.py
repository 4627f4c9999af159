"""The pages, one file each. A file here that has a ``page`` (``portal.shell.Page``) is served and stands in the navigation."""
