"""Model versions, what they score, and which deployment serves which."""
