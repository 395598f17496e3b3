"""Talking to an MLflow server: one attempt (`http`), credentials (`auth`), verbs and abilities (`api`)."""
