"""The data that are measured: samples, where they come from, each process's shard."""
