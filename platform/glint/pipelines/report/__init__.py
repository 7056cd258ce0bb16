"""The evaluation report: report.json for programs, report.html for people."""

from glint.pipelines.report.writing import make_directory, write_report

__all__ = ["make_directory", "write_report"]
