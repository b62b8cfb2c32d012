"""Many problems at once, and records that survive a kill."""
