"""Every claim of speed, memory or quality has its script here."""
