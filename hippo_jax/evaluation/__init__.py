"""A pair on a benchmark: readers, the resumable run over devices and hosts, the summary."""
