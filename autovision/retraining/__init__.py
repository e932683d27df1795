"""From labelled captures to the next search: the join of labels, and the policy that decides when."""
