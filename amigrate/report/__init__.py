"""What a person or a script sees: progress, log lines, the summary, `report.json`."""
