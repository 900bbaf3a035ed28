"""The profile of property tests: none depends on a clock, as machines are busy and first calls compile."""

from hypothesis import HealthCheck, settings

settings.register_profile("fastxent", deadline=None, print_blob=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fastxent")
