"""Our time over that of a peer, both measured here and now in one process: less is better."""
