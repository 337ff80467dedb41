"""Which tests are for every run, and which for CI and the patient: the marker ``long``.

``pytest -n auto`` covers every kind of thing once, within minutes; ``pytest -m long -n auto`` runs the
rest.
What is long is said here and nowhere else, but for tests that are long as a whole and carry the marker.

- Of the files of ``ONE_CASE_EACH`` the first case of every test is ordinary, the others are long.
- Of tests that run with each instruction set of the CPU kernel the one in use is ordinary.
- ``LONG`` are long one by one.
"""

from __future__ import annotations

import pytest

# Compilers for GPUs that are not here, their kernels interpreted or emulated, subprocesses that train.
ONE_CASE_EACH = (
    "tests/cli/test_letters.py",
    "tests/benchmarks/gpu/test_measure.py",
    "tests/benchmarks/gpu/test_checks.py",
    "tests/kernels/cuda/test_emulated.py",
    "tests/kernels/cuda/test_emulated_failures.py",
    "tests/kernels/cuda/test_emulated_gradients.py",
    "tests/kernels/cuda/test_emulated_non_finite.py",
    "tests/kernels/cuda/test_emulated_pairs.py",
    "tests/kernels/cuda/test_emulated_settings.py",
    "tests/kernels/cuda/test_emulated_split.py",
    "tests/kernels/cuda/test_tile_plan.py",
    "tests/kernels/triton/interpreted/test_catalogue.py",
    "tests/kernels/triton/interpreted/test_catalogue_non_finite.py",
    "tests/kernels/triton/interpreted/test_device_functions.py",
    "tests/kernels/triton/interpreted/test_fused.py",
    "tests/kernels/triton/interpreted/test_handover.py",
    "tests/kernels/triton/interpreted/test_layered.py",
    "tests/kernels/triton/interpreted/test_mixers.py",
    "tests/kernels/triton/interpreted/test_non_finite.py",
    "tests/kernels/triton/interpreted/test_pairs.py",
    "tests/kernels/triton/interpreted/test_scratch.py",
    "tests/kernels/triton/interpreted/test_seeds.py",
    "tests/kernels/triton/interpreted/test_self_check.py",
    "tests/kernels/triton/interpreted/test_tf32.py",
    "tests/kernels/triton/interpreted/test_tile_plan.py",
    "tests/kernels/triton/test_catalogue_compiled.py",
    "tests/kernels/cpu/test_cpu_objects.py::test_the_names_do_not_depend_on_what_is_inlined",
    "tests/kernels/cpu/test_cpu.py::test_the_environment_chooses_an_instruction_set",
    "tests/kernels/cpu/test_cpu_bf16.py",
    "tests/kernels/test_gradients.py",
    "tests/kernels/triton/test_layered_compiled.py",
    "tests/kernels/test_mixers.py",
    "tests/kernels/registry/test_pairs.py",
    "tests/kernels/registry/test_self_check.py",
    "tests/kernels/binding/test_structs.py",
    "tests/kernels/triton/test_triton_aot.py",
    "tests/kernels/triton/test_triton_launches.py",
    "tests/kernels/registry/test_unknown_choices.py",
    "tests/test_startup.py",
    "tests/test_tiers.py",
    "tests/training/test_comparison.py::test_both_rankings_are_those_of_evaluate",
    "tests/training/test_processes.py",
    "tests/training/test_rpt.py",
)
LONG = (
    "tests/benchmarks/gpu/test_measure.py::test_the_page_has_a_part_for_cards_where_there_are_rows",
    "tests/benchmarks/gpu/test_measure.py::test_the_whole_path",
    "tests/cli/test_full_disk.py::test_a_run_that_nobody_reads_goes_on",
    "tests/cli/test_plot.py::test_what_a_picture_says[recall@10]",
    "tests/cli/test_plot.py::test_what_is_stored_needs_no_torch",
    "tests/kernels/cuda/test_compiled.py::test_backward",
    "tests/kernels/cuda/test_compiled.py::test_registers_spills_and_instructions",
    "tests/kernels/cuda/test_compiled.py::test_the_low_latency_plan[64]",
    "tests/kernels/cuda/test_compiled.py::test_the_low_latency_plan[128]",
    # Of widths past 32, which take the emulator minutes to compile.
    "tests/kernels/cuda/test_emulated.py::test_a_sequence_alone_gives_the_same_decisions",
    "tests/kernels/cuda/test_emulated.py::test_dead_rows_change_nothing",
    "tests/kernels/cuda/test_emulated.py::test_every_adapter_and_norm_of_wide_rows",
    "tests/kernels/cuda/test_emulated.py::test_published_core",
    "tests/kernels/cuda/test_emulated.py::test_wide_rows_wait_while_a_branch_is_summed",
    "tests/kernels/cuda/test_emulated.py::test_without_dropout",
    "tests/kernels/cuda/test_emulated_gradients.py::test_every_adapter_and_norm_of_wide_rows",
    "tests/kernels/cuda/test_emulated_gradients.py::test_published_core",
    "tests/kernels/cuda/test_emulated_gradients.py::test_wide_rows_of_long_sequences",
    "tests/kernels/cuda/test_emulated_gradients.py::test_without_dropout",
    "tests/kernels/cuda/test_emulated_settings.py::test_staged_numbers_that_are_not_finite",
    "tests/kernels/cuda/test_emulated_settings.py::test_staged_weights",
    "tests/kernels/cuda/test_emulated_settings.py::test_steps_in_groups",
    "tests/kernels/cuda/test_emulated_settings.py::test_the_products_of_wider_weights",
    "tests/kernels/cuda/test_emulated_settings.py::test_tokens_in_other_parts",
    "tests/kernels/cuda/test_emulated_settings.py::test_weights_that_are_read_again",
    "tests/kernels/cuda/test_emulated_settings.py::test_weights_that_pass_in_pieces",
    "tests/kernels/cuda/test_emulated_split.py::test_published_core",
    "tests/kernels/cuda/test_emulated_split.py::test_the_drawn_state_and_the_result_are_those_of_tiles",
    # A function of the interpreter takes as long as a thousand of PyTorch's.
    "tests/kernels/triton/interpreted/test_catalogue.py::test_a_longer_list_than_a_tile_of_the_other_ops",
    "tests/kernels/triton/interpreted/test_catalogue.py::test_what_every_backend_does",
    "tests/kernels/triton/interpreted/test_catalogue_non_finite.py::test_what_every_backend_does",
    "tests/kernels/triton/interpreted/test_fused.py::test_a_run_that_goes_on_from_a_state",
    "tests/kernels/triton/interpreted/test_fused.py::test_a_sequence_alone_gives_the_same_bits",
    "tests/kernels/triton/interpreted/test_fused.py::test_backward_of_the_other_plan",
    "tests/kernels/triton/interpreted/test_fused.py::test_depths_and_rollouts",
    "tests/kernels/triton/interpreted/test_fused.py::test_gradients_of_the_given_state_and_of_the_trajectory_alone",
    "tests/kernels/triton/interpreted/test_fused.py::test_half_precision_by_the_yardstick",
    "tests/kernels/triton/interpreted/test_fused.py::test_packed_equals_padded_and_runs_repeat",
    "tests/kernels/triton/interpreted/test_fused.py::test_published_core",
    "tests/kernels/triton/interpreted/test_fused.py::test_steps_in_groups",
    "tests/kernels/triton/interpreted/test_fused.py::test_without_dropout",
    "tests/kernels/triton/interpreted/test_layered.py::test_a_run_that_goes_on_from_a_state",
    "tests/kernels/triton/interpreted/test_layered.py::test_each_sequence_to_its_own_depth",
    "tests/kernels/triton/interpreted/test_layered.py::test_half_precision_keeps_to_twice_the_reference",
    "tests/kernels/triton/interpreted/test_layered.py::test_other_first_states",
    "tests/kernels/triton/interpreted/test_layered.py::test_packed",
    "tests/kernels/triton/interpreted/test_layered.py::test_rollouts",
    "tests/kernels/triton/interpreted/test_layered.py::test_rows_that_nobody_reads",
    "tests/kernels/triton/interpreted/test_layered.py::test_sequences_of_several_blocks",
    "tests/kernels/triton/interpreted/test_layered.py::test_the_gradient_of_a_given_state",
    "tests/kernels/triton/interpreted/test_layered.py::test_two_runs_give_the_same_bits",
    "tests/kernels/triton/interpreted/test_layered.py::test_wide",
    "tests/kernels/triton/interpreted/test_mixers.py::test_a_run_that_goes_on_from_a_state",
    "tests/kernels/triton/interpreted/test_mixers.py::test_adapters_without_dropout",
    "tests/kernels/triton/interpreted/test_mixers.py::test_cutoffs",
    "tests/kernels/triton/interpreted/test_mixers.py::test_half_precision_keeps_to_twice_the_equations",
    "tests/kernels/triton/interpreted/test_mixers.py::test_the_plan_is_named_and_can_be_warmed_up",
    "tests/kernels/triton/interpreted/test_mixers.py::test_the_published_programs",
    "tests/kernels/triton/interpreted/test_mixers.py::test_two_layers",
    "tests/kernels/triton/interpreted/test_non_finite.py::test_gradients_that_are_not_finite",
    "tests/kernels/triton/interpreted/test_non_finite.py::test_neighbours",
    "tests/kernels/triton/interpreted/test_non_finite.py::test_parameters",
    "tests/kernels/triton/interpreted/test_non_finite.py::test_weights_on_the_chip",
    "tests/kernels/triton/interpreted/test_plan_failures.py::test_a_backward_of_its_own",
    "tests/kernels/triton/interpreted/test_plan_failures.py::test_resident_streamed_layered_reference",
    "tests/kernels/triton/interpreted/test_plan_failures.py::test_what_is_raised_as_it_is",
    "tests/kernels/triton/interpreted/test_scratch.py::test_of_a_core",
    "tests/kernels/triton/interpreted/test_self_check.py::test_good_kernels_pass",
    "tests/kernels/triton/interpreted/test_tf32.py::test_errors_keep_to_twice_those_of_rounding",
    "tests/kernels/triton/interpreted/test_tile_plan.py::test_a_batch_of_the_published_mean_is_one_wave",
    "tests/kernels/triton/interpreted/test_tile_plan.py::test_many_sequences_to_a_program",
    "tests/kernels/triton/test_catalogue_compiled.py::test_the_longest_list_fits",
    "tests/kernels/binding/test_cpu_library.py::test_a_library_of_another_version[lares_asked_isa]",
    "tests/kernels/binding/test_cpu_library.py::test_a_library_of_another_version[lares_look]",
    "tests/kernels/binding/test_cpu_library.py::test_a_library_of_another_version[everything]",
    "tests/kernels/cpu/test_harness.py::test_on_older_processors[Haswell-sets1]",
    "tests/kernels/triton/test_layered_compiled.py::test_attention",
    "tests/kernels/triton/test_layered_compiled.py::test_mixing",
    "tests/kernels/triton/test_layered_compiled.py::test_rows",
    "tests/kernels/test_programs.py::test_compilers_warn_of_nothing_and_compile_once[catalogue]",
    "tests/kernels/test_programs.py::test_compilers_warn_of_nothing_and_compile_once[refine]",
    "tests/kernels/test_programs.py::test_compilers_warn_of_nothing_and_compile_once[shapes]",
    "tests/kernels/triton/test_triton_aot.py::test_other_cores_with_resident_weights_take_little_besides",
    "tests/kernels/triton/test_triton_launches.py::test_every_adapter_compiles",
    "tests/test_startup.py::test_compiling_first_and_loading_an_exported_program",
    "tests/test_tiers.py::test_without_a_cpu_kernel_all_tests_are_collected",
    "tests/training/test_comparison.py::test_a_run_stopped_in_its_baseline_goes_on",
    "tests/cli/test_bulk.py::test_a_command_that_was_killed_goes_on",
    "tests/training/test_processes.py::test_two_processes_give_the_one_process_result",
    "tests/training/test_resume.py::test_killed_at_any_moment",
    "tests/training/test_rpt.py::test_two_processes_give_the_one_process_result",
)


# What takes minutes starts first, so that no processor waits for it at the end.
FIRST = (
    "tests/kernels/triton/test_triton.py",
    "tests/kernels/cpu/test_sanitizers.py",
    "tests/kernels/cuda/test_sanitizers.py",
    "tests/kernels/cpu/test_harness.py",
    "tests/kernels/cuda/test_compiled.py",
    "tests/training/test_processes.py",
    "tests/kernels/cuda/test_emulated.py::test_published_core",
    "tests/kernels/triton/test_layered_compiled.py",
    "tests/kernels/triton/test_triton_aot.py",
    "tests/kernels/triton/test_triton_launches.py",
    "tests/test_wheels.py",
)


def longest_first(items: list[pytest.Item]) -> None:
    """Put the tests of ``FIRST`` before all others; else the order stays."""
    items.sort(key=lambda item: not item.nodeid.startswith(FIRST))


def mark_long(items: list[pytest.Item]) -> None:
    """Give the marker ``long`` to the tests that are long by the rules above."""
    seen = set()
    for item in items:
        test = item.nodeid.split("[")[0]
        again = item.nodeid.startswith(ONE_CASE_EACH) and test in seen
        seen.add(test)
        if again or item.nodeid in LONG or test in LONG or _of_another_set(item):
            item.add_marker(pytest.mark.long)


def _of_another_set(item: pytest.Item) -> bool:
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    if "instruction_set" not in parameters:
        return False
    from lares_kernels.binding.cpu_library import instruction_set_in_use, load

    # Without a library there are no sets, and pytest skips the one test that stands for all of them.
    if isinstance(load(), str):
        return False
    return bool(parameters["instruction_set"] != instruction_set_in_use())
