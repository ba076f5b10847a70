"""Cohere's second API, chat and embed, called only: https://docs.cohere.com/v2/reference. Its rerank is `rerank`."""
