"""The engine plane: one process, one engine, one set of weights. It dies alone when native code crashes.

Knows engines, their health and where control is; knows no caller, no key and no price.
"""
