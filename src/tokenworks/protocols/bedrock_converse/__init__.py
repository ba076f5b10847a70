"""Converse and ConverseStream of Amazon Bedrock, called only: https://docs.aws.amazon.com/bedrock/latest/APIReference."""
