"""Who may serve: gates over paired predictions, and the policy that weighs them."""
