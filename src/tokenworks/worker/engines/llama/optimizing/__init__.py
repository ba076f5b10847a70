"""Weights in the format that this machine computes fastest: written anew, measured, chosen. Not part of serving."""
