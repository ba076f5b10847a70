"""The vocabulary every plane shares. Standard library only; imports nothing else of Tokenworks."""
