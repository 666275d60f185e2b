"""Config to Plan: every request that will be sent, frozen. Nothing here reads or writes anything outside."""
