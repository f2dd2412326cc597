"""What every store promises holds on a cluster: the cases of tests/collector, on six servers."""

from tests.collector import test_store as cases

globals().update({name: case for name, case in vars(cases).items() if name.startswith("test_")})
