"""The data plane: edge, admission, routing, upstream calls, metering. No database, no admin code."""
