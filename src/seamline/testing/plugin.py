"""The pytest plugin: one test file, every topology."""
