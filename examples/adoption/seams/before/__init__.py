"""The reviews app, unchanged."""
