"""A router for any pair: collect rows, label them, train on them, judge and calibrate the result."""
