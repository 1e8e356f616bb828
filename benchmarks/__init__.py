"""What is measured and published. Threads share out the processors before torch is loaded, as in the service."""

from app.process import processors

processors.begin()
