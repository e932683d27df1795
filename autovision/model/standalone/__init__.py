"""Files that go into every export as they are: they import nothing of this package, and run without it.

`portable.py` does what `autovision.image` and `autovision.decisions` do; a test holds them equal. Of the loaders each
export gets the one of its format, as `load.py`.
"""
