"""What the contract of source plug-ins finds is shown in full, though it stands beside the tests."""

import pytest

pytest.register_assert_rewrite("tests.support.source_contract", "tests.support.source_site")
