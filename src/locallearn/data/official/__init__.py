"""The data sets of the papers, one file each.

Imports `data`'s files on published sets, images and folders.
"""
