"""Judging policies: datasets, grading, metrics and comparisons."""
