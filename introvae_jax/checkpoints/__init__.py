"""Checkpoints: atomic writes by Orbax, checksums, retention, and proof of damage."""
