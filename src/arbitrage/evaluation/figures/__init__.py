"""Figures of a comparison, computed from condensed solutions."""
