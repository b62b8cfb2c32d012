"""The report of an evaluation: sentences, tables, plots, records for programs, and one page."""
