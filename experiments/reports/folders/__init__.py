"""Reports that are made from finished folders of `experiments.compare`."""
