"""The whole system as processes: the parent with the servers it owns, and gunicorn with its workers."""
