"""Measurements of the hub on one machine: `bench` the whole path, `micro` its functions, `profile` a worker."""
