"""Past one machine: solutions on the actors of a Ray cluster."""
