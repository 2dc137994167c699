"""What people start: each module is one flow, and reads like the sentence that describes it.

`forms` and `moving` are what flows share.
"""
