"""Where `benchmarks/step.py` still looks for `example_batch`."""

from locallearn._peak import example_batch as example_batch
