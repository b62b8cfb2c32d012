"""The loop and its vocabulary; standard library only."""
