"""Where disaggregation pays: which kind of rule has the lowest P95 TTFT, by workload, load, TBT SLO and step budget."""
