"""Runs the compose files for real: a Docker daemon in a sandbox, images built from nothing, and the whole service.

    make compose                              needs root on Debian, and the machine's sources of packages
    make compose ARGS="--work DIR --keep"     keep the files in DIR, and leave the last stack running

A machine without an image registry is enough. The images that the files name (Python, PostgreSQL, Redis, SeaweedFS) are
made from Debian's packages and a wheel, under the same names and with stand-ins for their entrypoints. pip's and apt's
configuration of the machine say where packages come from.

The sandbox has its own mount, network and process namespaces. Nothing on the machine changes, except that missing tools
(mmdebstrap, slirp4netns) are installed, and the end of one process ends all of it.
"""
