"""Whom people ask."""
