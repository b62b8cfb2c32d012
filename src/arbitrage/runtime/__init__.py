"""Bounded concurrency, run folders that survive a kill, the environment of a run, and model servers."""
