"""OpenAI Responses (https://www.openresponses.org/specification), served and called."""
