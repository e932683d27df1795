"""Labelled images: from folders and tables to immutable, digest-named versions in the store, and to pixels.

sources   what a folder or table says: paths and labels
importer  sources -> a DatasetVersion: decode, keep once, split, publish
split     which image is trained on, chosen on, tested on
manifest  the rows of a version
catalog   which versions there are
loader    digests -> pixels
elpv      the solar cells of the demo
"""
