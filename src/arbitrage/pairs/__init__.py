"""Pairs of models: their configuration, how they are loaded and launched, and the pairs that ship."""
