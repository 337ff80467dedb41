/* The recurrence of LARES (arXiv 2505.16865, section 3.2) on NVIDIA cards as a plain C library.
 *
 * All pointers are to memory of the card; calls neither allocate, copy nor synchronise, so they can
 * be captured in a CUDA graph. B sequences, G rollouts of each, S = B G; N rows (tokens) of all S;
 * width d. lares_kernels/cuda/ is its caller.
 */
#ifndef LARES_CUDA_H
#define LARES_CUDA_H

#include <stdint.h>

#include "lares_enums.h"

#define LARES_CUDA_API __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

#define LARES_CUDA_ABI 8
#define LARES_CUDA_FIELDS 8 /* fields of each row of a tile, see cuda/tile.hpp */
/* Sizes of the tile plan, see cuda/tile_plan.hpp. */
#define LARES_CUDA_BLOCK 128 /* sequences that are cut into tiles on their own */
#define LARES_CUDA_PROGRAM_SUMS 3
#define LARES_CUDA_SEQUENCE_FIELDS 6

/* A dropout rate m / 2^planes: `bits` is m in the highest `planes` bits; planes = 0 is none. */
typedef struct {
    uint32_t bits;
    int32_t planes;
    float scale; /* of kept elements */
} LaresCudaRate;

typedef struct {
    int32_t abi;    /* LARES_CUDA_ABI */
    int32_t device; /* number of the card */
    /* the core; d_ff is padded to a multiple of 32, head_tiles is the head's width in 16s, rounded
     * up */
    int32_t d_model, n_heads, head_tiles, d_ff, n_layers;
    int32_t adapter, activation, pre_norm;
    int32_t precision;                   /* LARES_BF16 or LARES_FP16 */
    float eps, state_scale, score_scale; /* score_scale: of Q K^T, log2(e) / sqrt(d / h) */
    LaresCudaRate residual, attention;   /* dropout */
    /* the batch */
    int32_t n_groups, rollouts; /* B, G */
    int32_t padded_length;      /* rows of `hidden` per sequence; 0: packed */
    int32_t n_hidden_rows;      /* rows of `hidden` */
    int32_t kept_rows;          /* rows of one step of `kept` */
    int32_t longest;            /* upper bound of the lengths; at most 16 unit_warps */
    int32_t max_steps;
    int32_t steps_done; /* steps that led to a given state; draws are numbered on from there */
    int32_t state_mode;
    uint32_t seed_low, seed_high;
    /* the launch: see lares_kernels/cuda/plan.py */
    int32_t unit_warps;   /* warps that share a tile of 16 rows each */
    int32_t units;        /* units of a block */
    int32_t blocks;       /* of the grid */
    int32_t resident;     /* weights stay in shared memory */
    int32_t staged;       /* weights that do not pass through it in pieces (cuda/stage.hpp); in
                             tiles alone */
    int32_t shared_bytes; /* of a block */
    int32_t max_tiles;    /* upper bound of the tiles */
    int32_t programs;     /* that cut the batch into tiles, each this many blocks of sequences: */
    int32_t program_blocks;
    int32_t planned; /* the tile plan exists already, from an earlier call */
    /* 0, or: a block for each sequence, all of whose warps share its up to 16 unit_warps rows
     * (cuda/split.hpp), and the inputs of W_2 in this many parts. Forward without dropout; no
     * workspaces, `order` or `kept`. */
    int32_t split_parts;
    /* settings that do not change results: see lares_kernels/cuda/settings.py */
    int32_t products_ahead; /* weight gradients load operands one tile ahead of the products */
    int32_t transposed; /* backward leaves their sides as they take them (cuda/spill.hpp); resident
                           alone */
    int32_t carveout; /* percentage of the memory shared by L1 cache and shared memory that goes to
                         the latter; 0: the driver's choice */
    void* stream;
    /* inputs */
    const int64_t* lengths;   /* (B,) */
    const int64_t* order;     /* (S,) order in which sequences are taken, deepest first, or NULL */
    const int64_t* num_steps; /* (S,) depth of each sequence, or NULL: all max_steps */
    const int64_t* sequence_ids; /* (B,), or NULL: 0..B-1 */
    int64_t*
        seed; /* (): 64-bit key of all draws, read whenever the kernels run; of a call that is cut
                 into tiles it is written there, from the next if there is one, else the words */
    const int64_t* seed_given; /* () or NULL */
    const float* hidden;       /* (n_hidden_rows, d) */
    const float* state;        /* like final_state, or NULL */
    const void* matrices;      /* packed, in the precision's type: lares_kernels/cuda/packing.py */
    const float* vectors;      /* packed */
    /* workspaces: the tile plan */
    int32_t* sequences;  /* (LARES_CUDA_SEQUENCE_FIELDS, S) */
    int32_t* sums;       /* (LARES_CUDA_PROGRAM_SUMS, programs) */
    int32_t* tile_start; /* (max_tiles,) */
    int32_t* tile_count; /* (1,) */
    int32_t* rows;       /* (max_tiles, 16 unit_warps, LARES_CUDA_FIELDS) */
    /* outputs */
    float* trajectory;  /* (S, max_steps, d) */
    float* last;        /* (S, d), the trajectory's last states; NULL: not written */
    float* final_state; /* (B, G, L, d), padding is not written, or (N, d); NULL: not written */
    float* kept;        /* (max_steps, kept_rows, d), s_0 .. s_{T-1} by kKeptRow, or NULL */
    /* backward: of steps last_step .. first_step, in this order */
    const float* g_trajectory; /* (S, max_steps, d), or NULL for zero */
    const float* g_state;      /* like final_state, or NULL for zero */
    float* carry;       /* (kept_rows, d), gradient of the state between two calls, or NULL */
    float* g_hidden;    /* (G, n_hidden_rows, d), added to */
    float* g_first;     /* like final_state, padding is not written; NULL: not written */
    void* spill;        /* (steps, layers, max_tiles unit_warps, fragments, 512 bytes): spill.hpp */
    void* concat_spill; /* (steps, max_tiles unit_warps, 3 d / 16, 512 bytes), or NULL */
    void* scratch;      /* (blocks units unit_warps, scratch_bytes) */
    float*
        gradients; /* (blocks units unit_warps, numbers of vectors): LayerNorms, gate; added to */
    float* g_matrices; /* (splits, fragments of all matrices, 256): parts of the sum */
    float* g_vectors;  /* (splits, numbers of vectors): parts of the biases' */
    int32_t first_step, last_step, scratch_bytes;
    int32_t splits, begins; /* begins: g_matrices and g_vectors are set, not added to */
    /* on the host: parameters to pack in the tile plan's launch; NULL: they are packed */
    const struct LaresCudaPack* pack;
} LaresCudaCall;

/* Properties of a card. */
typedef struct {
    int32_t multiprocessors;
    int32_t shared_limit; /* bytes of shared memory that a block can have */
    int32_t major, minor; /* compute capability */
} LaresCudaCard;

/* Packs parameters in the order of `matrices` and `vectors`. */
#define LARES_CUDA_PARAMETERS 16 /* upper bound of their number */
typedef struct LaresCudaPack {
    int32_t device, unit_warps; /* 1 */
    int32_t precision, matrix_numbers, vector_numbers;
    int32_t sizes[LARES_CUDA_PARAMETERS]; /* size of each in numbers, 0 for absent ones */
    const float* parameters[LARES_CUDA_PARAMETERS];
    const int32_t*
        places; /* (matrix_numbers + vector_numbers,): which of them all, from 1; 0: zero */
    void* matrices;
    float* vectors;
    void* stream;
} LaresCudaPack;

/* Sums gradients of parameters from partial gradients of the packed arrays. */
typedef struct {
    int32_t device, unit_warps; /* 1 */
    int32_t splits, warps;      /* parts of g_matrices and g_vectors; of gradients */
    int32_t matrix_numbers, vector_numbers, count;
    const int32_t* places;   /* (count,): where each lies in matrices, then vectors; -1: nowhere */
    const float* g_matrices; /* (splits, matrix_numbers) */
    const float* g_vectors;  /* (splits, vector_numbers) */
    const float* gradients;  /* (warps, vector_numbers), added to those */
    float* out;              /* (count,) */
    void* stream;
} LaresCudaUnpack;

/* All return NULL, or an error message. */
LARES_CUDA_API const char* lares_cuda_pack(const LaresCudaPack* call);
LARES_CUDA_API const char* lares_cuda_unpack(const LaresCudaUnpack* call);
LARES_CUDA_API const char* lares_cuda_card(int32_t device, LaresCudaCard* card);
LARES_CUDA_API const char* lares_cuda_forward(const LaresCudaCall* call);
/* Cuts the batch into tiles, as forward does, when last_step is max_steps and it is not planned. */
LARES_CUDA_API const char* lares_cuda_backward(const LaresCudaCall* call);

/* Inputs and outputs of every primitive of a warp, in lines of 32 words:
 * lares_kernels/cuda/probe.py. */
#define LARES_CUDA_PROBE_INPUTS 8
#define LARES_CUDA_PROBE_LINES 111
typedef struct {
    int32_t device, unit_warps; /* 2 */
    void* stream;
    const int32_t* input; /* (LARES_CUDA_PROBE_INPUTS, 32) */
    const int64_t* wide;  /* (32,) */
    int32_t* output;      /* (LARES_CUDA_PROBE_LINES, 32) */
    int32_t* scratch;     /* (4, 32) */
} LaresCudaProbe;
LARES_CUDA_API const char* lares_cuda_probe(const LaresCudaProbe* call);

/* Type of the device whose memory the library reads: "cuda", or "cpu" for the emulator of the
 * tests. */
LARES_CUDA_API const char* lares_cuda_device_type(void);

/* Writes the bytes of a LaresCudaCall, LaresCudaCard, LaresCudaPack, LaresCudaUnpack and
 * LaresCudaProbe: a caller with other ones was compiled with other structs. */
LARES_CUDA_API void lares_cuda_sizes(int64_t* sizes);

/* Architectures it was built for, as "80 90a 100a". */
LARES_CUDA_API const char* lares_cuda_architectures(void);

#ifdef __cplusplus
}
#endif
#endif
