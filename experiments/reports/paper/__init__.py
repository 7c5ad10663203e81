"""The report of the claims of arXiv 2607.02043."""
