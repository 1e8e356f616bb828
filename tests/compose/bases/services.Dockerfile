# Stand-ins for the official images of PostgreSQL, Redis and SeaweedFS, with their users, folders and volumes.
FROM debian-services AS postgres
COPY entrypoints/postgres.sh /usr/local/bin/docker-entrypoint.sh
RUN usermod -u 70 postgres && groupmod -g 70 postgres \
    && sed -ri "s!^#?(listen_addresses)\s*=\s*\S+.*!\1 = '*'!" /usr/share/postgresql/15/postgresql.conf.sample \
    && rm -rf /var/lib/postgresql \
    && install -d -o postgres -g postgres -m 1777 /var/lib/postgresql /var/lib/postgresql/data \
    && install -d -o postgres -g postgres -m 3777 /var/run/postgresql
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/15/bin \
    PGDATA=/var/lib/postgresql/data LANG=C.UTF-8
VOLUME /var/lib/postgresql/data
STOPSIGNAL SIGINT
EXPOSE 5432
ENTRYPOINT ["docker-entrypoint.sh"]
CMD ["postgres"]

FROM debian-services AS redis
RUN install -d -o redis -g redis /data
VOLUME /data
WORKDIR /data
EXPOSE 6379
CMD ["redis-server"]

FROM debian-services AS store
COPY weed /usr/bin/weed
RUN ln -s /bin/busybox /usr/bin/wget && install -d -o 1000 -g 1000 /data
EXPOSE 8333
VOLUME /data
WORKDIR /data
ENTRYPOINT ["/usr/bin/weed"]
