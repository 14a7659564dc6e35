"""Checks that every training rule and every network passes; run them on your own.

    from locallearn.testing import check_network, check_rule
    check_rule(MyRule())
    check_network(make_my_network, (3, 32, 32))

Or write one test for each check:

    from locallearn.testing import CHECKS, Case

    @pytest.mark.parametrize("check", CHECKS)
    def test_my_rule(check):
        check(Case(rule=MyRule()))
"""

from locallearn.testing.case import Case as Case
from locallearn.testing.checks import CHECKS as CHECKS, check_network as check_network, check_rule as check_rule
