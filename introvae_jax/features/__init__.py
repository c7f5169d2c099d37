"""Networks that look at images on behalf of a metric."""
