"""Backends that write steps; each module is named after the extra it needs."""
