"""The desk: HTTP for the public. It has no contract."""
