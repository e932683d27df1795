"""Many searches on one cluster: what it has, whose turn it is, and how many trials each may run."""
