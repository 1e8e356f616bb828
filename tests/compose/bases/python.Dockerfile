# Stands in for python:3.11-slim-bookworm.
FROM debian-python
COPY pip.conf /etc/pip.conf
COPY certificates.crt /etc/ssl/certs/ca-certificates.crt
ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin
CMD ["python3"]
