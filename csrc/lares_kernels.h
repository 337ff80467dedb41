/* LARES (arXiv 2505.16865) as a plain C library: the recurrence of section 3.2, and scores of a
 * whole catalogue (further down).
 *
 *   s_t = Layers(LayerNorm(adapter(s_{t-1}, H))),  t = 1..T
 *
 * No Python, no torch: any program with float32 arrays can call it. Arrays are row-major and
 * contiguous. B sequences, G rollouts of each, S = B G; N rows (tokens) of all S; width d,
 * feed-forward f.
 */
#ifndef LARES_KERNELS_H
#define LARES_KERNELS_H

#include <stdint.h>

#include "lares_enums.h"

#define LARES_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

#define LARES_ABI 6

/* Every field is 8 bytes wide, so that any language can fill the struct as an array of words. */
typedef struct {
    int64_t abi; /* LARES_ABI */
    /* the core */
    int64_t d_model, n_heads, d_ff, n_layers;
    int64_t adapter, activation, norm;
    int64_t mixer, window, cutoff; /* window: L, else 0; cutoff: c of BSARec, whose low band is the
                                      first c / 2 + 1 frequencies */
    int64_t precision;             /* LARES_FP32, or LARES_BF16, in which attention stays float32 */
    int64_t dropout_level, attn_dropout_level, inner_dropout_level; /* rates in 256ths; 0: off */
    int64_t spares_attention; /* 1: dropout_level applies to the feed-forward's output only */
    int64_t padding;
    double eps, state_scale; /* state_scale: omega sigma */
    double band_share;       /* a of BSARec: a bands + (1 - a) attention */
    /* the batch */
    int64_t n_sequences; /* B */
    int64_t rollouts;    /* G */
    int64_t
        padded_length;  /* rows of `hidden` per sequence; 0: packed, one sequence after the other */
    int64_t n_rows;     /* rows of `hidden` if packed */
    int64_t max_steps;  /* T; 1 for LARES_ADAPTER_NONE */
    int64_t steps_done; /* steps that led to a given state; draws are numbered on from there */
    int64_t state_mode;
    int64_t seed; /* the 64 bits of the key */
    int64_t threads;
    int64_t keeps_padding;       /* 1: `kept` has padded rows too, like `final_state` */
    const int64_t* lengths;      /* (B,) */
    const int64_t* steps;        /* (S,) depth of each sequence, or NULL: all max_steps */
    const int64_t* sequence_ids; /* (B,), or NULL: 0..B-1 */
    const float* hidden;         /* (B, L, d) or (N / G, d) */
    const float* state;          /* like final_state; read if LARES_STATE_GIVEN */
    /* Layers' parameters are stacked over the layers, as in lares_kernels/spec/parameters.py; for
     * places and sizes see parameters.inc */
    const float* parameters[LARES_PARAMETERS];
    /* forward */
    float* trajectory;  /* (S, T, d) */
    float* final_state; /* (B, G, L, d), zeros at padding, or (N, d); NULL: not written */
    /* saved by forward for backward; NULL in inference */
    float* kept;      /* (T, N, d) */
    float* kept_rstd; /* (T, N), for LARES_NORM_POST */
    /* backward */
    const float* g_trajectory; /* (S, T, d) or NULL for zero */
    const float* g_state;      /* like final_state, or NULL for zero */
    float* g_hidden;           /* like hidden, zeros at padding */
    float* g_first_state;      /* like final_state; NULL: not written */
    float* g_parameters[LARES_PARAMETERS];
} LaresCall;

/* Both return LARES_OK or an error code; on an error the outputs are undefined. */
LARES_API int lares_refine_forward(const LaresCall* call);
LARES_API int lares_refine_backward(const LaresCall* call);

/* Check a Python program's tensors against a pattern and fill a call with their addresses: all that
 * is left to do for a call that repeats an earlier one. Tensor by tensor through the interpreter it
 * takes longer than a small kernel. Neither Python's headers nor torch's are needed: LaresReader
 * hands over functions of the interpreter's stable ABI, and of torch the one by which DLPack's
 * exchange table (version 1) describes a tensor. */
#define LARES_DIMENSIONS 4 /* most dimensions of a tensor */

typedef struct {
    /* of the interpreter; results of type_of and call must be released */
    intptr_t (*size_of)(void* list);
    void* (*item_of)(void* list, intptr_t index);
    void* (*type_of)(void* object);
    void* (*call)(void* function, ...); /* with objects, the last of them NULL */
    void (*release)(void* object);
    void (*forget_error)(void);
    /* of torch; 0, or an error is set */
    int (*describe)(void* tensor, void* description);
    /* objects */
    void *none, *is_false;
    void* types[2];   /* a tensor has one of these, and no subclass of them */
    void* is_negated; /* a function of a tensor: true for a lazily negated view, which no
                         description shows */
} LaresReader;

typedef struct {
    int64_t word; /* index of LaresCall's 8-byte word that gets the tensor's address */
    int64_t type; /* LARES_FLOAT32 or LARES_INT64 */
    int64_t may_be_none;
    int64_t dimensions;
    int64_t shape[LARES_DIMENSIONS]; /* a negative size: any */
    /* lares_look's own: the latest tensor here that was not negated, and its address; NULL at first
     */
    void* known;
    const void* known_at;
} LaresPlace;

typedef struct {
    const LaresReader* reader;
    const LaresCall* call; /* but for the addresses */
    int64_t n_places;
    LaresPlace* places;
} LaresPattern;

/* 1, and `call` is filled in, if `list`, a Python list, matches the pattern: contiguous tensors on
 * the CPU that have memory. Else 0, and `call` is undefined. The interpreter's
 * lock must be held; the addresses are valid as long as the tensors are kept. */
LARES_API int lares_look(const LaresPattern* pattern, void* list, LaresCall* call);

/* Scores of a catalogue: s_nv = q_n . e_v / temperature, both normalised first for LARES_COSINE.
 * R rows have N / R consecutive queries each; an item that a row excludes is left out. The matrix
 * of scores is never stored: items are processed block by block. As above, every field is 8 bytes
 * wide. */
typedef struct {
    int64_t abi; /* LARES_ABI */
    int64_t n_queries, n_rows, n_items, width;
    int64_t scores;
    int64_t precision;      /* of the products, as above */
    int64_t items_are_bf16; /* `items` holds bfloat16, else float32 */
    int64_t n_excluded;     /* H; 0: none */
    int64_t k;              /* of top_k, in 1..V */
    int64_t threads;
    double temperature;
    const float* queries;    /* (N, d) */
    const void* items;       /* (V, d) */
    const int64_t* chosen;   /* (R,) items in 0..V-1; not for top_k */
    const int64_t* excluded; /* (R, H), ascending in every row; ids outside 0..V-1 are ignored */
    /* log_probability: for the chosen item; lares_catalogue_gradients reads `normaliser` */
    float* log_probability; /* (N,) */
    float* normaliser;      /* (N,) log of the sum of exp(s) */
    float* entropy;         /* (N,); NULL: not written */
    /* gradients */
    const float* g_log_probability; /* (N,) */
    float* g_queries;               /* (N, d); NULL: not written */
    float* g_items;                 /* (V, d); NULL: not written */
    /* top_k: best first, ties to the lower id; -inf and -1 past the last item */
    float* top_scores; /* (N, k) */
    int64_t* top_ids;  /* (N, k) */
    /* ranks of the chosen items: number of others that score at least as high; -1 for NaN */
    int64_t* ranks; /* (N,) */
} LaresCatalogue;

/* All return a code; any number of threads gives the same bits. */
LARES_API int lares_catalogue_log_probability(const LaresCatalogue* call);
LARES_API int lares_catalogue_gradients(const LaresCatalogue* call);
LARES_API int lares_catalogue_top_k(const LaresCatalogue* call);
LARES_API int lares_catalogue_ranks(const LaresCatalogue* call);

/* Instruction sets that serve a precision, of those this library was built with and this processor
 * has, best first, as "avx512 avx2 generic". The first is used unless lares_use_isa names another
 * of them ("" for the best again). A name that ends in _bf16 is for LARES_BF16 only and leaves
 * LARES_FP32 unchanged; any other is for both. lares_use_isa returns 0, or -1 for an unknown name.
 * lares_asked_isa returns the name requested for a precision, "" for none. */
LARES_API const char* lares_isas(int precision);
LARES_API int lares_use_isa(const char* name);
LARES_API const char* lares_asked_isa(int precision);

/* Writes the bytes of a LaresCall, then of a LaresCatalogue: a caller with other ones was compiled
 * with other structs. */
LARES_API void lares_sizes(int64_t* sizes);

/* Measures one core's peak rate of the multiply-adds used for a precision, in 1e9 floating-point
 * operations per second. */
LARES_API double lares_measure_peak(int precision);

/* Computes y[i] = function(x[i]) as the kernel does, for tests of its stated error. Returns 0, or
 * -1 for an unknown function. */
LARES_API int lares_evaluate(int function, int64_t count, const float* x, float* y);

#ifdef __cplusplus
}
#endif
#endif
