"""A folder of JSON documents and files as a Source and as a Sink."""
