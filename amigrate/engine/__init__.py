"""Moving batches of records of every kind from a Source to a Sink. Knows nothing of HTTP, disk or MLflow."""
