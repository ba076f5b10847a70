"""The command line: one file per noun. Speaks HTTP through `tokenworks.client`, never to a database."""
