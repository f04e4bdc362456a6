"""Puts each cell on a GPU of its type and brings the rows home; the only part that knows Ray."""
