"""Exporters: one file for each place that an invocation's results can be sent to. See docs/export.md."""
