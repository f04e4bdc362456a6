"""Runs compared with each other: before and after an update, on two clusters, at two commits.

The path of the rows:

    pairs.of_run(rows)                one run      -> its cells, by what pairs them
    compared.compare(runs)            runs         -> Comparison: what changed, decided together
    table, export, limits             Comparison   -> terminal, Markdown, CSV, JSON, an exit code
    history.of_runs(runs)             many runs    -> each cell over time
"""
