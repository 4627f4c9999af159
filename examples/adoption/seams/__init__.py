"""The reviews as Seamline modules: mounted as they were, and again with one seam cut."""
