"""mnv3search: platform-aware architecture search and NetAdapt for mobile networks."""
