"""A Kubernetes cluster: a Deployment with a Service, and a Job, per task, through the official client."""
