"""DeepInfra: dedicated models, rented by the GPU-hour. Jobs run elsewhere."""
