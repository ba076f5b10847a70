"""An engine that answers with what it was told, word by word. It ships for tests, demos and load tests."""
