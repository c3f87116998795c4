"""The domain: organizations, members, upstreams, models, limits; their store; the snapshot that is served."""
