"""The one place that knows llama.cpp's C API: declarations, the shared library, and a check that both agree.

The library is the one inside the xllamacpp wheel, which exports llama.cpp's public functions. Nothing is compiled
(cffi's ABI mode), so a struct that differs from its declaration would corrupt memory without a word. Hence the wheel is
pinned exactly, and `library()` compares what the `*_default_params` functions return with what they are known to.
Header: https://github.com/ggml-org/llama.cpp/blob/master/include/llama.h
"""

import functools
import logging
from importlib import metadata, util
from pathlib import Path
from typing import Any

import cffi

PINNED = "2026.10.11549"
"""The version of xllamacpp whose structs are declared here."""

DECLARATIONS = """
typedef int32_t llama_token;
typedef int32_t llama_pos;
typedef int32_t llama_seq_id;
struct llama_model;
struct llama_context;
struct llama_vocab;
struct llama_adapter_lora;
typedef struct llama_memory_i * llama_memory_t;

struct llama_model_params {
    void * devices;
    const void * tensor_buft_overrides;
    int32_t n_gpu_layers;
    int32_t split_mode;
    int32_t load_mode;
    int32_t lazy_mode;
    int32_t main_gpu;
    const float * tensor_split;
    bool (*progress_callback)(float progress, void * user_data);
    void * progress_callback_user_data;
    const void * kv_overrides;
    bool vocab_only;
    bool check_tensors;
    bool use_extra_bufts;
    bool no_host;
    bool no_alloc;
    bool load_mtp;
};

struct llama_context_params {
    uint32_t n_ctx;
    uint32_t n_batch;
    uint32_t n_ubatch;
    uint32_t n_seq_max;
    uint32_t n_rs_seq;
    uint32_t n_outputs_max;
    uint32_t n_outputs_max_per_seq;
    int32_t n_threads;
    int32_t n_threads_batch;
    int32_t ctx_type;
    int32_t rope_scaling_type;
    int32_t pooling_type;
    int32_t attention_type;
    int32_t flash_attn_type;
    float rope_freq_base;
    float rope_freq_scale;
    float yarn_ext_factor;
    float yarn_attn_factor;
    float yarn_beta_fast;
    float yarn_beta_slow;
    uint32_t yarn_orig_ctx;
    float defrag_thold;
    void * cb_eval;
    void * cb_eval_user_data;
    int32_t type_k;
    int32_t type_v;
    size_t moe_cache_size;
    void * abort_callback;
    void * abort_callback_data;
    bool embeddings;
    bool offload_kqv;
    bool no_perf;
    bool op_offload;
    bool swa_full;
    bool kv_unified;
    void * samplers;
    size_t n_samplers;
    struct llama_context * ctx_other;
};

struct llama_batch {
    int32_t n_tokens;
    llama_token * token;
    float * embd;
    llama_pos * pos;
    int32_t * n_seq_id;
    llama_seq_id ** seq_id;
    int8_t * logits;
};

const char * llama_version(void);
void llama_log_set(void (*callback)(int level, const char * text, void * user_data), void * user_data);
void llama_backend_init(void);
struct llama_model_params llama_model_default_params(void);
struct llama_context_params llama_context_default_params(void);

struct llama_model * llama_model_load_from_file(const char * path, struct llama_model_params params);
void llama_model_free(struct llama_model * model);
struct llama_context * llama_init_from_model(struct llama_model * model, struct llama_context_params params);
void llama_free(struct llama_context * ctx);
uint32_t llama_n_ctx_seq(const struct llama_context * ctx);
uint32_t llama_n_ubatch(const struct llama_context * ctx);
int32_t llama_pooling_type(const struct llama_context * ctx);

const struct llama_vocab * llama_model_get_vocab(const struct llama_model * model);
int32_t llama_model_n_ctx_train(const struct llama_model * model);
int32_t llama_model_n_embd_out(const struct llama_model * model);
uint32_t llama_model_n_cls_out(const struct llama_model * model);
int32_t llama_model_n_layer(const struct llama_model * model);
uint64_t llama_model_size(const struct llama_model * model);
int32_t llama_model_desc(const struct llama_model * model, char * buf, size_t buf_size);
int32_t llama_model_meta_val_str(const struct llama_model * model, const char * key, char * buf, size_t buf_size);
const char * llama_model_chat_template(const struct llama_model * model, const char * name);
bool llama_model_has_encoder(const struct llama_model * model);
bool llama_model_is_recurrent(const struct llama_model * model);
bool llama_model_is_hybrid(const struct llama_model * model);
int32_t llama_model_n_swa(const struct llama_model * model);

struct llama_adapter_lora * llama_adapter_lora_init(struct llama_model * model, const char * path);
void llama_adapter_lora_free(struct llama_adapter_lora * adapter);
int32_t llama_set_adapters_lora(struct llama_context * ctx, struct llama_adapter_lora ** adapters, size_t n_adapters,
                                float * scales);

llama_memory_t llama_get_memory(const struct llama_context * ctx);
void llama_memory_clear(llama_memory_t mem, bool data);
bool llama_memory_seq_rm(llama_memory_t mem, llama_seq_id seq_id, llama_pos p0, llama_pos p1);
void llama_memory_seq_cp(llama_memory_t mem, llama_seq_id src, llama_seq_id dst, llama_pos p0, llama_pos p1);
llama_pos llama_memory_seq_pos_max(llama_memory_t mem, llama_seq_id seq_id);
size_t llama_state_seq_get_size(struct llama_context * ctx, llama_seq_id seq_id);
size_t llama_state_seq_get_data(struct llama_context * ctx, uint8_t * dst, size_t size, llama_seq_id seq_id);
size_t llama_state_seq_set_data(struct llama_context * ctx, const uint8_t * src, size_t size, llama_seq_id dest);

int32_t llama_decode(struct llama_context * ctx, struct llama_batch batch);
void llama_set_abort_callback(struct llama_context * ctx, void * callback, void * data);
void llama_set_n_threads(struct llama_context * ctx, int32_t n_threads, int32_t n_threads_batch);
float * llama_get_logits_ith(struct llama_context * ctx, int32_t i);
float * llama_get_embeddings_seq(struct llama_context * ctx, llama_seq_id seq_id);

int32_t llama_vocab_n_tokens(const struct llama_vocab * vocab);
int32_t llama_vocab_get_attr(const struct llama_vocab * vocab, llama_token token);
bool llama_vocab_is_eog(const struct llama_vocab * vocab, llama_token token);
bool llama_vocab_is_control(const struct llama_vocab * vocab, llama_token token);
llama_token llama_vocab_bos(const struct llama_vocab * vocab);
llama_token llama_vocab_eos(const struct llama_vocab * vocab);
llama_token llama_vocab_eot(const struct llama_vocab * vocab);
llama_token llama_vocab_sep(const struct llama_vocab * vocab);
bool llama_vocab_get_add_bos(const struct llama_vocab * vocab);
bool llama_vocab_get_add_eos(const struct llama_vocab * vocab);
bool llama_vocab_get_add_sep(const struct llama_vocab * vocab);
int32_t llama_tokenize(const struct llama_vocab * vocab, const char * text, int32_t text_len, llama_token * tokens,
                       int32_t n_tokens_max, bool add_special, bool parse_special);
int32_t llama_token_to_piece(const struct llama_vocab * vocab, llama_token token, char * buf, int32_t length,
                             int32_t lstrip, bool special);

void GOMP_parallel(void (*function)(void * data), void * data, unsigned threads, unsigned flags);
void free(void * pointer);
size_t strlen(const char * text);
"""
"""The last three are not llama.cpp's, but what it is linked with: OpenMP, something to call that does nothing, and
something that tells whether a byte is set."""

MODEL_DEFAULTS = {
    "n_gpu_layers": -1,
    "split_mode": 1,
    "load_mode": -1,
    "lazy_mode": 1,
    "main_gpu": 0,
    "vocab_only": False,
    "check_tensors": False,
    "use_extra_bufts": True,
    "no_host": False,
    "no_alloc": False,
    "load_mtp": False,
}
CONTEXT_DEFAULTS = {
    "n_ctx": 512,
    "n_batch": 2048,
    "n_ubatch": 512,
    "n_seq_max": 1,
    "n_outputs_max": 0,
    "ctx_type": 0,
    "rope_scaling_type": -1,
    "pooling_type": -1,
    "attention_type": -1,
    "flash_attn_type": -1,
    "yarn_ext_factor": -1.0,
    "defrag_thold": -1.0,
    "type_k": 1,
    "type_v": 1,
    "moe_cache_size": 0,
    "embeddings": False,
    "offload_kqv": True,
    "no_perf": True,
    "op_offload": True,
    "swa_full": True,
    "kv_unified": False,
    "n_samplers": 0,
}
"""What b11549's default parameters say; fields at their places prove that the struct is laid out as declared."""

LEVELS = {2: logging.DEBUG, 3: logging.WARNING, 4: logging.ERROR}
STOPPED = ("removing memory module entries", "failed with error 1", "compute status: 1", "ret = 2")
"""What llama.cpp logs as errors when a forward pass was stopped because we told it to."""
log = logging.getLogger("llama.cpp")

ffi = cffi.FFI()
ffi.cdef(DECLARATIONS)


class BindingError(Exception):
    """The wheel is not the one that this file was written for; the message says what differs and the remedy."""


def shared_object() -> Path:
    """Of the wheel, found without importing it."""
    spec = util.find_spec("xllamacpp")
    if spec is None or spec.origin is None:
        raise BindingError(f"xllamacpp is not installed: pip install xllamacpp=={PINNED}")
    folder = Path(spec.origin).parent
    found = sorted([*folder.glob("xllamacpp*.so"), *folder.glob("xllamacpp*.pyd"), *folder.glob("xllamacpp*.dylib")])
    if not found:
        raise BindingError(f"{folder} holds no shared library: pip install --force-reinstall xllamacpp=={PINNED}")
    return found[0]


@functools.cache
def library() -> Any:
    """The verified library, opened once for the process. BindingError when it is another one."""
    installed = metadata.version("xllamacpp")
    if installed != PINNED:
        raise BindingError(
            f"xllamacpp is {installed}, but the engine's declarations are those of {PINNED}: "
            f"pip install xllamacpp=={PINNED}"
        )
    lib = ffi.dlopen(str(shared_object()))
    verify(lib)
    lib.llama_log_set(_hear, ffi.NULL)
    lib.llama_backend_init()
    return lib


def verify(lib: Any) -> None:
    """BindingError names the first field that is not where it should be."""
    pairs = (
        ("llama_model_params", lib.llama_model_default_params(), MODEL_DEFAULTS),
        ("llama_context_params", lib.llama_context_default_params(), CONTEXT_DEFAULTS),
    )
    for name, params, known in pairs:
        for field, expected in known.items():
            if (got := getattr(params, field)) != expected:
                raise BindingError(
                    f"the layout of {name} differs: {field} is {got!r} by default, not {expected!r}. "
                    f"The installed llama.cpp is not the one of xllamacpp {PINNED}: reinstall that version"
                )


def _log(level: int, text: Any, _: Any) -> None:
    if level not in LEVELS:
        return
    line = ffi.string(text).decode(errors="replace").strip()
    if line and not any(words in line for words in STOPPED):
        log.log(LEVELS[level], "%s", line)


_hear = ffi.callback("void(int, const char *, void *)", _log)
