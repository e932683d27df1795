"""The search: which trials to run, on what share of the budget, and which model comes of them."""
