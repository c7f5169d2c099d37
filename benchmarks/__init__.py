"""Scripts that reproduce every claim about speed, memory or quality."""
