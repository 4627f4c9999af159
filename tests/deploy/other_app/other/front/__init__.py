"""The public face: asks names who somebody is."""
