"""One file for each broker: how its own words map to :mod:`seamline.events.transport`."""
