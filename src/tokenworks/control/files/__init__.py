"""`/v1/files`: uploads, downloads, their rows and their end."""
