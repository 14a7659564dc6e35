"""Where `benchmarks/_bench.py` still looks for `example_batch`."""

from locallearn._peak import example_batch as example_batch
