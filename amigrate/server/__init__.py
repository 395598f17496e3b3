"""A tracking server as a Source and as a Sink: the kinds know the endpoints, these two know which kind is meant."""
