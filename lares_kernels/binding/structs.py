"""Mirror the structs and numbers of csrc/lares_kernels.h and csrc/lares_cuda.h, field by field.

Written by ``python csrc/structs.py``: change a header, run that.
"""

import ctypes
from ctypes import c_double, c_float, c_int32, c_int64, c_uint32, c_void_p
from typing import Any

from lares_kernels.spec.parameters import PLACES as LARES_PARAMETERS


def _each(kind: Any, names: str) -> list[tuple[str, Any]]:
    """Return fields of one type, one after the other."""
    return [(name, kind) for name in names.split()]


LARES_ABI = 6
LARES_DIMENSIONS = 4
LARES_CUDA_ABI = 8
LARES_CUDA_FIELDS = 8
LARES_CUDA_BLOCK = 128
LARES_CUDA_PROGRAM_SUMS = 3
LARES_CUDA_SEQUENCE_FIELDS = 6
LARES_CUDA_PARAMETERS = 16
LARES_CUDA_PROBE_INPUTS = 8
LARES_CUDA_PROBE_LINES = 111


class LaresCall(ctypes.Structure):
    """Mirror ``LaresCall``."""

    _fields_ = [
        *_each(c_int64, "abi d_model n_heads d_ff n_layers adapter activation norm mixer window"),
        *_each(c_int64, "cutoff precision dropout_level attn_dropout_level inner_dropout_level"),
        *_each(c_int64, "spares_attention padding"),
        *_each(c_double, "eps state_scale band_share"),
        *_each(c_int64, "n_sequences rollouts padded_length n_rows max_steps steps_done"),
        *_each(c_int64, "state_mode seed threads keeps_padding"),
        *_each(c_void_p, "lengths steps sequence_ids hidden state"),
        ("parameters", c_void_p * LARES_PARAMETERS),
        *_each(c_void_p, "trajectory final_state kept kept_rstd g_trajectory g_state g_hidden"),
        *_each(c_void_p, "g_first_state"),
        ("g_parameters", c_void_p * LARES_PARAMETERS),
    ]


class LaresCatalogue(ctypes.Structure):
    """Mirror ``LaresCatalogue``."""

    _fields_ = [
        *_each(c_int64, "abi n_queries n_rows n_items width scores precision items_are_bf16"),
        *_each(c_int64, "n_excluded k threads"),
        ("temperature", c_double),
        *_each(c_void_p, "queries items chosen excluded log_probability normaliser entropy"),
        *_each(c_void_p, "g_log_probability g_queries g_items top_scores top_ids ranks"),
    ]


class LaresCudaRate(ctypes.Structure):
    """Mirror ``LaresCudaRate``."""

    _fields_ = [
        ("bits", c_uint32),
        ("planes", c_int32),
        ("scale", c_float),
    ]


class LaresCudaCall(ctypes.Structure):
    """Mirror ``LaresCudaCall``."""

    _fields_ = [
        *_each(c_int32, "abi device d_model n_heads head_tiles d_ff n_layers adapter activation"),
        *_each(c_int32, "pre_norm precision"),
        *_each(c_float, "eps state_scale score_scale"),
        *_each(LaresCudaRate, "residual attention"),
        *_each(c_int32, "n_groups rollouts padded_length n_hidden_rows kept_rows longest"),
        *_each(c_int32, "max_steps steps_done state_mode"),
        *_each(c_uint32, "seed_low seed_high"),
        *_each(c_int32, "unit_warps units blocks resident staged shared_bytes max_tiles"),
        *_each(c_int32, "programs program_blocks planned split_parts products_ahead transposed"),
        *_each(c_int32, "carveout"),
        *_each(c_void_p, "stream lengths order num_steps sequence_ids seed seed_given hidden"),
        *_each(c_void_p, "state matrices vectors sequences sums tile_start tile_count rows"),
        *_each(c_void_p, "trajectory last final_state kept g_trajectory g_state carry g_hidden"),
        *_each(c_void_p, "g_first spill concat_spill scratch gradients g_matrices g_vectors"),
        *_each(c_int32, "first_step last_step scratch_bytes splits begins"),
        ("pack", c_void_p),
    ]


class LaresCudaCard(ctypes.Structure):
    """Mirror ``LaresCudaCard``."""

    _fields_ = [
        *_each(c_int32, "multiprocessors shared_limit major minor"),
    ]


class LaresCudaPack(ctypes.Structure):
    """Mirror ``LaresCudaPack``."""

    _fields_ = [
        *_each(c_int32, "device unit_warps precision matrix_numbers vector_numbers"),
        ("sizes", c_int32 * LARES_CUDA_PARAMETERS),
        ("parameters", c_void_p * LARES_CUDA_PARAMETERS),
        *_each(c_void_p, "places matrices vectors stream"),
    ]


class LaresCudaUnpack(ctypes.Structure):
    """Mirror ``LaresCudaUnpack``."""

    _fields_ = [
        *_each(c_int32, "device unit_warps splits warps matrix_numbers vector_numbers count"),
        *_each(c_void_p, "places g_matrices g_vectors gradients out stream"),
    ]


class LaresCudaProbe(ctypes.Structure):
    """Mirror ``LaresCudaProbe``."""

    _fields_ = [
        *_each(c_int32, "device unit_warps"),
        *_each(c_void_p, "stream input wide output scratch"),
    ]
