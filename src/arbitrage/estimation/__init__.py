"""What a run's traces and the costs of a machine say together: seconds there, and whether a pair is worth it."""
