"""Images in files, too many to hold in memory: listed once, decoded as they are needed.

Imports `augmentation`, `batches` and `order` of `data`.
"""
