"""Cross-checks of the simulator against others: recordings of their runs, and AISimulate side by side."""
