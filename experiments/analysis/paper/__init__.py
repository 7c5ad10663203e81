"""The claims of arXiv 2607.02043: runs behind them, verdicts, ablations."""
