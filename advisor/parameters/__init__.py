"""What a model consists of before anything runs: layers, parameters, adapters, storage."""
