"""Tables, migrations and repositories: the only package that speaks SQL. Knows nothing of HTTP.

A repository function takes an open connection; who opened the transaction commits it.
"""
