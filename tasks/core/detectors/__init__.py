"""Detectors: what personal data and secrets look like, and how a dataset is searched for them.

`entities` is the vocabulary, `patterns` and `checks` find and verify single values, `columns` judges a column by its
hits against chance, `tables` reads objects as record batches, and `scan` walks a dataset. All but `entities` import
polars and pyarrow, so import them where they are used.
"""
