"""Rerank as Together, Cohere, Jina and vLLM have it in common, served and called."""
