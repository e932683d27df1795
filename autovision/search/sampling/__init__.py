"""Which point of a space is tried next: the samplers, on rows of numbers, told from the ledger."""
