"""Queues over time, and how early alarms on them warn."""
