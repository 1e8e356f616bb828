"""Published measurements, and the modules they share.

The number of threads is set here, before torch is loaded, by the same rule as in the service.
"""

from app.process.resources import processors

processors.begin()
