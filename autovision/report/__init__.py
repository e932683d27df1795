"""Pages that a person reads: drawings, tables, and what they are made of."""
