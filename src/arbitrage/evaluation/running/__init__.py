"""Running a comparison: its plan, the sweep over problems, the run folder, and solutions condensed for the figures."""
