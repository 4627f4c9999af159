"""Hears of orders."""
