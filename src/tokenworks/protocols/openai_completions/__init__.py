"""OpenAI text completions (https://platform.openai.com/docs/api-reference/completions), served and called."""
