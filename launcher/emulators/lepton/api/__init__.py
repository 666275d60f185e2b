"""The routes of the control plane, one file per kind of resource."""
