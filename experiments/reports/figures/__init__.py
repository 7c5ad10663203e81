"""Figures. Each function returns a `matplotlib.figure.Figure`; nothing global is touched, and no display is needed."""
