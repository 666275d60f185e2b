"""What several emulators have in common."""
