"""The Python client: it answers a round from local events with one masked report."""
