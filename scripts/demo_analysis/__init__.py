"""leaderboards/demo/analysis.md: what happens inside the demo model, from committed results alone."""

from demo_analysis.page import analysis_page

__all__ = ["analysis_page"]
