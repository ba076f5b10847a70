"""What an attempt used and what that costs."""
