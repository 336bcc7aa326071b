"""What all tests share. Nothing here measures: on a machine that is busy they only take longer (see `patience`)."""

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
