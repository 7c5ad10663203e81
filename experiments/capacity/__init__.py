"""How much each policy carries on each split of the nodes."""
