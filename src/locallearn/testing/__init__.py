"""What every training rule must pass, for rules of your own too.

    from locallearn.testing import check_rule
    check_rule(MyRule())

or, one test for each check:

    from locallearn.testing import CHECKS

    @pytest.mark.parametrize("check", CHECKS)
    def test_my_rule(check):
        check(MyRule())
"""

from locallearn.testing._checks import CHECKS as CHECKS, check_rule as check_rule
