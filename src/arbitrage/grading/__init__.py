"""Grading: whether an answer equals the gold answer."""

from arbitrage.grading.exact import Verdict
from arbitrage.grading.grader import Grade, Grader, grade, grade_traces, is_correct, is_same, shared

__all__ = ["Grade", "Grader", "Verdict", "grade", "grade_traces", "is_correct", "is_same", "shared"]
