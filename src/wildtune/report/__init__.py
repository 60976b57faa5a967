"""The honest report of a run: its charts, its analysis in words and its page."""

from wildtune.report.analysis import Section, write_analysis
from wildtune.report.content import RunContent
from wildtune.report.page import write_report

__all__ = ["RunContent", "Section", "write_analysis", "write_report"]
