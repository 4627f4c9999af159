"""Words that look alike."""
