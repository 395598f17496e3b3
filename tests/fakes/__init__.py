"""Servers that do what a real MLflow server will not do on demand."""
