"""Stand-ins for what cannot be had in a unit test: a platform on a virtual clock."""
