"""Contract control -> gateway: everything a gateway must know to admit, route and price a request."""
