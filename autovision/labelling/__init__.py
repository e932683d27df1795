"""What people say of images, weighed: consensus, probable errors, and which images to ask about next.

Arrays and records in, arrays and records out: nothing here reads or writes a store.
"""
