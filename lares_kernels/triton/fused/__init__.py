"""Run the fused plan: tiles of whole sequences whose state stays in registers for all steps."""
