"""The reviews again, with one function cut out into a module. What did not change is imported from before."""
