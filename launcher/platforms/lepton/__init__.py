"""NVIDIA DGX Cloud Lepton: one dedicated endpoint and one job per task, through its control plane's HTTP API."""
