"""Figures of a comparison: metrics, intervals, paired comparisons, frontiers."""
