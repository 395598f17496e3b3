"""Talking to an MLflow server.

One attempt and what its status means (`http`), verbs (`api`), what a server is and can do (`abilities`, `ping`), ways
to log in (`login`, `auth`, `oauth`, `sigv4`), the way there (`network`), and pages that are none of MLflow's (`pages`).
"""
