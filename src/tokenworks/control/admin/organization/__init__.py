"""`/v1/organization/*` in the shape that the official clients know. One file per noun.

Every question is about the organization of the caller's admin key: an id of another one is not found.
"""
