"""Detectors: pure functions from what is normal and what came lately to a verdict.

rates         which p-value is an alarm, so that all detectors together keep to one rate of false alarms
permutation   an exact p-value of any statistic, for as little work as the verdict needs
projection    embeddings in a few dimensions, and how far they are from their plane
kernel        input: the maximum mean discrepancy of embeddings, and which images make it up
columns       prediction, confidence and quality: the means of figures, and which of them moved
labelled      accuracy: labelled requests against held-out images of the same confidences
"""
