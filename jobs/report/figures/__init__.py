"""The figures of a report, declared with Vega-Altair: one definition for page, files and notebooks.

    cases = compare.compared(rows.records(samples=False))
    data = figures.data.of(cases, figures.samples.of_rows(rows))
    figures.every.named("speedup").static(data)              a chart, which a notebook shows

Each module has one or two figures; `every` lists them in the order of the page.
"""
