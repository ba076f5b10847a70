"""Anthropic's Messages (https://platform.claude.com/docs/en/api/messages), served and called."""
