"""The commands, and the evidence and reports behind them; `python -m experiments` lists the commands."""
