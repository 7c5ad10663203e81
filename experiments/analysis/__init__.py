"""From the records of runs to numbers, intervals and comparisons."""
