"""Our engine: a scheduler for many tenants on llama.cpp's kernels."""
