"""Rows as Parquet: columns, the results folder, rows that wait."""
