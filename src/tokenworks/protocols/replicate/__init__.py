"""Replicate's predictions (https://replicate.com/docs/reference/http), served and called: their pure part.

A prediction outlives the request that made it. Who keeps it, polls it and calls its webhooks is not decided here;
`prediction.py` is the record, `stream.py` its events.
"""
