"""Which fixtures does every test know?"""

pytest_plugins = [
    "tests.plugins.servers",
    "tests.plugins.postgres",
    "tests.plugins.stage",
    "tests.plugins.market",
    "tests.plugins.past",
    "tests.plugins.crashes",
    "tests.plugins.invariants",
    "tests.plugins.promises",
    "tests.plugins.browser",
]
