"""Energy of a forward: meters, their ticks, windows aligned to them."""
