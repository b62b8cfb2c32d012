"""Models that judge steps: process reward models and routers."""
