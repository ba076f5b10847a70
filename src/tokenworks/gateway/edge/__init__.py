"""Step 1 of a request: bytes and headers in, one `Exchange` out; and everything that needs no upstream."""
