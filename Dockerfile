FROM python:3.11-slim-bookworm AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /build

# Two environments: one builds, the other is what runs and holds neither pip nor the build's own packages.
RUN python -m venv /opt/build && python -m venv --without-pip /opt/alertrouter
COPY requirements/build.txt requirements/runtime.txt requirements/
RUN /opt/build/bin/pip install --require-hashes -r requirements/build.txt \
 && /opt/build/bin/pip --python /opt/alertrouter/bin/python install --require-hashes -r requirements/runtime.txt
COPY pyproject.toml README.md LICENSE ./
COPY src src
RUN /opt/build/bin/pip wheel --no-deps --no-build-isolation --wheel-dir dist . \
 && /opt/build/bin/pip --python /opt/alertrouter/bin/python install --no-deps dist/*.whl


FROM python:3.11-slim-bookworm
LABEL org.opencontainers.image.title="alertrouter" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY --from=build /opt/alertrouter /opt/alertrouter
# The samples, so that the image starts as it is; mount your own rules over them.
COPY rules /etc/alertrouter/rules
RUN install -d -o 65532 -g 65532 -m 0700 /var/lib/alertrouter

# Outside loopback the service starts only with ALERTROUTER_WEBHOOK_TOKENS (or ALERTROUTER_WEBHOOK_TOKENS_FILE).
ENV PATH=/opt/alertrouter/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    ALERTROUTER_LISTEN=0.0.0.0:9087 \
    ALERTROUTER_RULES=/etc/alertrouter/rules \
    ALERTROUTER_DATA_DIR=/var/lib/alertrouter \
    ALERTROUTER_LOG_FORMAT=json
USER 65532:65532
WORKDIR /var/lib/alertrouter
VOLUME /var/lib/alertrouter
EXPOSE 9087
HEALTHCHECK --interval=10s --timeout=3s --start-period=30s CMD ["python", "-c", "import os, urllib.request; urllib.request.urlopen('http://127.0.0.1:%s/-/healthy' % os.environ['ALERTROUTER_LISTEN'].rpartition(':')[2], timeout=2)"]
# No shell between: SIGTERM reaches the service, which drains.
ENTRYPOINT ["alertrouter"]
CMD ["serve"]
