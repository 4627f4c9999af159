"""A small application for the tests of the testing kit."""
