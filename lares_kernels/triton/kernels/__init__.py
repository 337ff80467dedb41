"""Compute on the device. Importing a module of this folder imports Triton.

Under ``TRITON_INTERPRET=1``, set before Triton is first imported, it runs on the CPU.
"""
