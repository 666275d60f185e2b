"""A run whose supervisor is in the cluster: what the machine does that began it, and what the pod does."""
