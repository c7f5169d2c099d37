"""The networks, as functions of (variables, inputs)."""
