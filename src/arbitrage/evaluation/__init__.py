"""Comparisons of methods on the same problems: running them, and computing figures from their solutions."""
