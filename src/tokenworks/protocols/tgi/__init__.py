"""Text Generation Inference (https://huggingface.co/docs/text-generation-inference), served and called.

One protocol with several paths: `/` answers a list or a stream as the body says, `/generate` one object,
`/generate_stream` a stream. Requests name no model. `chat.py` and `embed.py` are what its clients read elsewhere.
"""
