"""An application that tells, at each of its seams, on whose behalf it acts."""
