"""Words, ports, errors and JSON: what every other room may use. Imports nothing of ours."""
