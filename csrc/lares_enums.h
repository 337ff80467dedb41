/* Made of lares_kernels/spec/choices.py by `python csrc/enums.py`: change that, run this. */

#ifndef LARES_ENUMS_H
#define LARES_ENUMS_H

/* Choose how the state s meets H. add is (s + H) / 2; gate is g s + (1 - g) H with g =
 * sigmoid(a); concat is W [s ; H] + b; none runs the layers alone, once, on H: no state and no
 * LayerNorm before them (the pre-block). */
enum {
    LARES_ADAPTER_ADD = 0,
    LARES_ADAPTER_GATE = 1,
    LARES_ADAPTER_CONCAT = 2,
    LARES_ADAPTER_NONE = 3,
};

/* Choose how rows of a sequence mix: causal attention; a learned circular filter (FMLP-Rec);
 * attention beside rescaled frequency bands (BSARec). The last two mix all rows of a padded
 * sequence, padding too; they need post-norm and padded input. */
enum {
    LARES_MIXER_ATTENTION = 0,
    LARES_MIXER_FILTER = 1,
    LARES_MIXER_BSAREC = 2,
};

/* Choose the activation of the feed-forward. */
enum {
    LARES_GELU = 0,
    LARES_GELU_TANH = 1,
    LARES_RELU = 2,
    LARES_SILU = 3,
};

/* Choose where a layer's LayerNorms stand. */
enum {
    LARES_NORM_POST = 0,
    LARES_NORM_PRE = 1,
    LARES_NORM_QUERY = 2,
};

/* Choose where padding stands in padded arrays. With left-zeros it is read as zero tokens. */
enum {
    LARES_PADDING_RIGHT = 0,
    LARES_PADDING_LEFT = 1,
    LARES_PADDING_LEFT_ZEROS = 2,
};

/* Choose where the state before the first step comes from. */
enum {
    LARES_STATE_GIVEN = 0,
    LARES_STATE_DRAWN = 1,
    LARES_STATE_ZERO = 2,
};

/* Choose the type of products' factors. Those with weights, and of weight gradients, may be
 * rounded to it, and are where the processor gains by it; sums, LayerNorm and the state stay
 * float32. */
enum {
    LARES_FP32 = 0,
    LARES_BF16 = 1,
    LARES_FP16 = 2,
};

/* Choose how a query scores an item: dot product, or cosine. */
enum {
    LARES_DOT = 0,
    LARES_COSINE = 1,
};

/* Number how a call of the CPU library ended; after an error its outputs are undefined. */
enum {
    /* all is well */
    LARES_OK = 0,
    /* an option or size that the kernel does not serve */
    LARES_BAD_ARGUMENT = 1,
    /* a length below 1 or above padded_length, or lengths that do not add up to n_rows */
    LARES_BAD_LENGTH = 2,
    /* a depth below 1 or above max_steps */
    LARES_BAD_STEPS = 3,
    /* a sequence id below 0 or above 2^24 - 1 */
    LARES_BAD_ID = 4,
    /* no memory for the kernel's buffers */
    LARES_NO_MEMORY = 5,
    /* a chosen item outside the catalogue */
    LARES_BAD_ITEM = 6,
};

/* Choose the type of numbers that a tensor holds. */
enum {
    LARES_FLOAT32 = 0,
    LARES_INT64 = 1,
};

/* Choose an elementary function as the CPU kernel computes it. */
enum {
    LARES_EXP = 0,
    LARES_LOG = 1,
    LARES_ERF_SCALED = 2,
    LARES_GELU_SLOPE = 3,
    LARES_SIGMOID = 4,
};

/* Places of parameters; NULL for those that a core does not have. */
enum { LARES_PARAMETERS = 20 };

#endif
