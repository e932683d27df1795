"""Labelled images: from folders and tables to immutable, digest-named versions in the store, and to pixels.

listing   what is known of an image before it is opened
sources   a folder (`folders`) or a table (`tables`) -> a listing
ingest    opens, checks and stores images
split     which image is trained on, chosen on, tested on
manifest  the rows of a version
importer  all of that: sources -> a DatasetVersion
catalog   which versions there are
loader    digests -> pixels
elpv      the solar cells of the demo
"""
