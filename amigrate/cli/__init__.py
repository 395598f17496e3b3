"""The command line: parses, builds options, prints, exits."""
