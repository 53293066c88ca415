"""Networks (torch modules) built from architectures."""
