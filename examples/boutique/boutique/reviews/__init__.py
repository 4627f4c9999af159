"""Reviews: an app that was there before the boutique, mounted as it is. It has no contract."""
