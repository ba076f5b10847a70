"""One value for every parameter that callers may send, so that each can be tried. Names only: what becomes of them is
found out (parameters.py). A name with a dot is a member of a member."""

from dataclasses import dataclass, field
from typing import Any

_SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}, "required": ["a"], "additionalProperties": False}
_FUNCTION: dict[str, Any] = {"name": "f", "description": "d", "parameters": _SCHEMA}
_TOOL: dict[str, Any] = {"type": "function", "function": _FUNCTION}


@dataclass(frozen=True, slots=True)
class Surface:
    """`base` is a request without any of the `parameters`; `needs` are members without which one makes no sense."""

    title: str
    base: dict[str, Any]
    parameters: dict[str, Any]
    needs: dict[str, dict[str, Any]] = field(default_factory=dict)


_SAMPLING = {
    "temperature": 0.5,
    "top_p": 0.5,
    "frequency_penalty": 0.5,
    "presence_penalty": 0.5,
    "seed": 7,
    "stop": ["x"],
    "logit_bias": {"7": 1.0},
    "n": 2,
    "stream": True,
    "stream_options": {"include_usage": True},
    "user": "u",
}
_OPEN_MODELS = {
    "top_k": 7,
    "min_p": 0.5,
    "repetition_penalty": 1.5,
    "ignore_eos": True,
    "min_tokens": 7,
    "guided_regex": "a+",
    "guided_choice": ["a", "b"],
    "guided_grammar": 'root ::= "a"',
    "structured_outputs": {"regex": "a+"},
    "typical_p": 0.5,
    "cache_salt": "s",
    "mirostat_lr": 0.5,
    "mirostat_target": 0.5,
}
_CHAT = {
    **_SAMPLING,
    "max_tokens": 9,
    "max_completion_tokens": 9,
    "logprobs": True,
    "top_logprobs": 2,
    "tools": [_TOOL],
    "tool_choice": "required",
    "parallel_tool_calls": False,
    "functions": [_FUNCTION],
    "function_call": "auto",
    "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": _SCHEMA, "strict": True}},
    "reasoning_effort": "low",
    "service_tier": "flex",
    "store": True,
    "metadata": {"k": "v"},
    "modalities": ["text", "audio"],
    "audio": {"voice": "v", "format": "wav"},
    "prediction": {"type": "content", "content": "x"},
    "web_search_options": {"search_context_size": "low"},
    "verbosity": "low",
    "moderation": {"model": "m"},
    "prompt_cache_key": "k",
    "prompt_cache_options": {"mode": "auto"},
    "prompt_cache_retention": "24h",
    "safety_identifier": "s",
}
_TOGETHER = {
    "reasoning": {"enabled": True, "effort": "low"},
    "chat_template_kwargs": {"k": 1},
    "echo": True,
    "context_length_exceeded_behavior": "error",
    "safety_model": "m",
    "compliance": "hipaa",
}
_FIREWORKS = {
    "thinking": {"type": "enabled", "budget_tokens": 2000},
    "perf_metrics_in_response": True,
    "raw_output": True,
    "echo_last": 1,
    "return_token_ids": True,
    "reasoning_history": "all",
    "prompt_cache_isolation_key": "k",
    "prompt_truncate_len": 9,
    "safe_tokenization": True,
    "speculation": "x",
}
_GROQ = {
    "reasoning_format": "raw",
    "include_reasoning": False,
    "documents": [{"source": {"type": "text", "text": "x"}}],
    "citation_options": "enabled",
    "compound_custom": {"models": {"reasoning_model": "m"}},
    "disable_tool_validation": True,
    "search_settings": {"country": "x"},
    "include_domains": ["x"],
    "exclude_domains": ["x"],
}
_CHAT_NEEDS: dict[str, dict[str, Any]] = {
    "top_logprobs": {"logprobs": True},
    "stream_options": {"stream": True},
    "tool_choice": {"tools": [_TOOL]},
    "parallel_tool_calls": {"tools": [_TOOL]},
    "function_call": {"functions": [_FUNCTION]},
}
_CHAT_BASE: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "x"}]}
_TEXT = {
    **_SAMPLING,
    **_OPEN_MODELS,
    "max_tokens": 9,
    "best_of": 2,
    "echo": True,
    "logprobs": 2,
    "suffix": "x",
    "safety_model": "m",
}
_TEXT_BASE: dict[str, Any] = {"model": "m", "prompt": "x"}
_TEXT_NEEDS: dict[str, dict[str, Any]] = {"stream_options": {"stream": True}}
_FLAT_TOOL: dict[str, Any] = {"type": "function", **_FUNCTION}
_CUSTOM_TOOL: dict[str, Any] = {"name": "f", "description": "d", "input_schema": _SCHEMA}

SURFACES = {
    "openai_chat": Surface(
        "OpenAI, Together: chat completions",
        _CHAT_BASE,
        _CHAT | _OPEN_MODELS | _TOGETHER | _FIREWORKS,
        _CHAT_NEEDS,
    ),
    "fireworks_chat": Surface(
        "Fireworks: chat completions", _CHAT_BASE, _CHAT | _OPEN_MODELS | _TOGETHER | _FIREWORKS, _CHAT_NEEDS
    ),
    "groq_chat": Surface("Groq: chat completions", _CHAT_BASE, _CHAT | _GROQ, _CHAT_NEEDS),
    "openai_responses": Surface(
        "OpenAI: responses",
        {"model": "m", "input": "x"},
        {
            "instructions": "x",
            "max_output_tokens": 9,
            "max_tool_calls": 2,
            "temperature": 0.5,
            "top_p": 0.5,
            "top_logprobs": 2,
            "tools": [_FLAT_TOOL],
            "tool_choice": "required",
            "parallel_tool_calls": False,
            "text": {"format": {"type": "json_schema", "name": "x", "schema": _SCHEMA, "strict": True}},
            "reasoning": {"effort": "low"},
            "include": ["reasoning.encrypted_content"],
            "previous_response_id": "resp_x",
            "conversation": "conv_x",
            "prompt": {"id": "x"},
            "context_management": [{"type": "compaction"}],
            "background": True,
            "background_options": {"k": 1},
            "store": True,
            "stream": True,
            "stream_options": {"include_obfuscation": True},
            "truncation": "auto",
            "service_tier": "flex",
            "metadata": {"k": "v"},
            "user": "u",
            "safety_identifier": "s",
            "prompt_cache_key": "k",
            "prompt_cache_options": {"mode": "auto"},
            "prompt_cache_retention": "24h",
            "moderation": {"model": "m"},
            "access_programs": ["x"],
            "image": {"k": 1},
        },
        {
            "tool_choice": {"tools": [_FLAT_TOOL]},
            "parallel_tool_calls": {"tools": [_FLAT_TOOL]},
            "stream_options": {"stream": True},
        },
    ),
    "anthropic_messages": Surface(
        "Anthropic: messages",
        {"model": "m", "max_tokens": 9000, "messages": [{"role": "user", "content": "x"}]},
        {
            "max_tokens": 9001,
            "system": "x",
            "stop_sequences": ["x"],
            "temperature": 0.5,
            "top_p": 0.5,
            "top_k": 7,
            "tools": [_CUSTOM_TOOL],
            "tool_choice": {"type": "any"},
            "thinking": {"type": "enabled", "budget_tokens": 2000},
            "output_config": {"effort": "low"},
            "stream": True,
            "metadata": {"user_id": "u"},
            "service_tier": "standard_only",
            "cache_control": {"type": "ephemeral"},
            "container": "c",
            "diagnostics": {"k": 1},
            "thread": {"type": "create"},
            "inference_geo": "us",
            "speed": "fast",
            "user_profile_id": "x",
            "workspace_id": "x",
            "raw_output": True,
        },
        {"tool_choice": {"tools": [_CUSTOM_TOOL]}},
    ),
    "openai_completions": Surface("OpenAI, Together: completions", _TEXT_BASE, _TEXT, _TEXT_NEEDS),
    "fireworks_completions": Surface(
        "Fireworks: completions",
        _TEXT_BASE,
        {
            **_TEXT,
            **_FIREWORKS,
            "max_completion_tokens": 9,
            "top_logprobs": 2,
            "context_length_exceeded_behavior": "error",
            "images": ["x"],
            "metadata": {"k": "v"},
            "prediction": "x",
            "prompt_cache_key": "k",
            "reasoning_effort": "low",
            "response_format": {"type": "json_object"},
            "service_tier": "flex",
        },
        _TEXT_NEEDS,
    ),
    "tgi_generate": Surface(
        "TGI: generate",
        {"inputs": "x", "parameters": {}},
        {
            "parameters.best_of": 2,
            "parameters.decoder_input_details": True,
            "parameters.details": True,
            "parameters.do_sample": True,
            "parameters.frequency_penalty": 0.5,
            "parameters.grammar": {"type": "json", "value": _SCHEMA},
            "parameters.max_new_tokens": 9,
            "parameters.repetition_penalty": 1.5,
            "parameters.return_full_text": True,
            "parameters.seed": 7,
            "parameters.stop": ["x"],
            "parameters.temperature": 0.5,
            "parameters.top_k": 7,
            "parameters.top_n_tokens": 2,
            "parameters.top_p": 0.5,
            "parameters.truncate": 9,
            "parameters.typical_p": 0.5,
            "parameters.watermark": True,
        },
    ),
    "replicate": Surface(
        "Replicate: predictions of language models",
        {"version": "o/m", "input": {"prompt": "x"}},
        {
            "input.system_prompt": "x",
            "input.prompt_template": "a {prompt} b",
            "input.max_tokens": 9,
            "input.max_new_tokens": 9,
            "input.min_tokens": 7,
            "input.temperature": 0.5,
            "input.top_p": 0.5,
            "input.top_k": 7,
            "input.presence_penalty": 0.5,
            "input.frequency_penalty": 0.5,
            "input.repetition_penalty": 1.5,
            "input.seed": 7,
            "input.stop_sequences": "x",
        },
    ),
    "openai_embeddings": Surface(
        "OpenAI, Together, Groq: embeddings",
        {"model": "m", "input": "x"},
        {"dimensions": 7, "encoding_format": "base64", "user": "u"},
    ),
    "rerank": Surface(
        "Together: rerank",
        {"model": "m", "query": "x", "documents": [{"title": "x", "text": "y"}]},
        {"top_n": 1, "return_documents": True, "rank_fields": ["title"]},
    ),
}
