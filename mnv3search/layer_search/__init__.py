"""Layer search: NetAdapt."""
