"""What the models of a pair cost on this machine, per token written, read or verified, and what follows."""
