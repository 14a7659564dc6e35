"""What every training rule must pass, for rules of your own too.

    from locallearn.testing import check_rule
    check_rule(MyRule())

or, one test for each check:

    from locallearn.testing import CHECKS

    @pytest.mark.parametrize("check", CHECKS)
    def test_my_rule(check):
        check(MyRule())

Networks are checked so:

    from locallearn.testing import check_network
    check_network(make_my_network, (3, 32, 32))
"""

from locallearn.testing._checks import CHECKS as CHECKS, check_rule as check_rule
from locallearn.testing._network_checks import (
    NETWORK_CHECKS as NETWORK_CHECKS,
    Case as Case,
    check_network as check_network,
)
