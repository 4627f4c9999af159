"""What models run on, each imported where it is used."""
