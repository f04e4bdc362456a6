"""The report as one HTML page without a network: answer, table, figures, how it was measured."""
