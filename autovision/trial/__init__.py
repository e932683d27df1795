"""One trial: a configuration, trained on features that are computed once, reported rung by rung."""
