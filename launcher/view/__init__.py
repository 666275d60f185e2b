"""The local web page over the state folder: `nv-eval view`. It reads and never writes."""
