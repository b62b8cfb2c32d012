"""Running a comparison: plan, sweep, run folder, condensed solutions."""
