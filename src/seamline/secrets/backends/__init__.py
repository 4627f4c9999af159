"""What keeps the values: our own sealed file, or the store of a bigger world."""
