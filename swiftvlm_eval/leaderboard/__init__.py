"""Leaderboards from run records: tables, pictures and pages. Imports no torch."""

from swiftvlm_eval.leaderboard.build import BuildReport, build

__all__ = ["BuildReport", "build"]
