"""OpenAI embeddings (https://platform.openai.com/docs/api-reference/embeddings), served and called."""
