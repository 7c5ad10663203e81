"""Placement policies in use: a live router in front of workers, and the service around it."""
