"""The claims of arXiv 2607.02043 beside what this project finds."""
