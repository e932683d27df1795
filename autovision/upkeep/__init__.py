"""Looking after a store: check it, remove what nothing refers to, copy it to another back end."""
