"""Watching a deployment: windows of captured requests, drift detectors, and the reports that they make."""
