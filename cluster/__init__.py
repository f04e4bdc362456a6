"""Puts each cell on a GPU of its type and brings the rows home; the only part that knows Ray."""

# What each process runs, as MODULE:FUNCTION: given a Request, it yields events. By name, so that
# only the process imports it, and torch with it.
MEASURE = "bench.measure:measure"
