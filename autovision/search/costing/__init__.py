"""Seconds and memory that a trial takes on this kind of node, predicted before it is begun."""
