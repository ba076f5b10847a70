"""Contract control -> gateway: everything a gateway must know to admit, route and price a request.

Control holds a `publisher.Publisher`, a gateway a `subscriber.Subscriber`; docs/snapshot.md is the contract.
"""
