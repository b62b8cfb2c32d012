"""A router for any pair: collect training rows, label them, train on them, and measure the router's quality."""
