"""Placement policies in front of NVIDIA Dynamo: mock workers, a live router, and the service around it."""
