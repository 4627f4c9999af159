"""Decides on what people ask for at a counter."""
