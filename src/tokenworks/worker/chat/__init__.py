"""Conversations as text, for engines of ours: a chat template renders one, and a reader finds reasoning and tool calls
in what the model says. Pure: no engine, no socket. docs/worker-protocol.md has the picture.

    template = Template(source, bos="<s>", eos="</s>", special=specials)     # once, from the weights
    prompt = template.render(messages, tools)                                # prompt.pieces -> tokens
    reader = Reader(template.format, tools, thinking=prompt.thinking)        # once for each choice
    for piece in pieces: deltas = reader.feed(piece)                         # core.events, at any cut the same
    deltas = reader.close()
"""
