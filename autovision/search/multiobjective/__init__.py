"""Several objectives at once: what each model costs in them, the front, and how one search works for all."""
