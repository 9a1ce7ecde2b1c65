# syntax=docker/dockerfile:1
# One image for every process, in two targets: docker build --target cpu (or gpu) --tag octavo .
# Pin the base by digest for a release: --build-arg BASE=python:3.12-slim-bookworm@sha256:...
ARG BASE=python:3.12-slim-bookworm

FROM ${BASE} AS wheel
WORKDIR /source
COPY . .
RUN pip wheel --no-cache-dir --no-deps --wheel-dir /wheels .

# What both targets run in. The compiler builds the CPU kernels for the machine they start on.
FROM ${BASE} AS runtime
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --gid 10001 octavo \
    && useradd --uid 10001 --gid octavo --no-create-home --home-dir /tmp octavo \
    && install --directory --mode 1777 /var/cache/octavo
# HOME for whichever user Compose chooses. Triton loads what it has compiled as a library, which
# Docker allows in no tmpfs, such as Compose's /tmp; and in the cache it is still there next time.
ENV PATH=/opt/octavo/bin:$PATH \
    HOME=/tmp \
    PYTHONUNBUFFERED=1 \
    TRITON_CACHE_DIR=/var/cache/octavo/triton \
    XDG_CACHE_HOME=/var/cache
USER 10001:10001
WORKDIR /tmp
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=600s CMD ["octavo", "health"]
ENTRYPOINT ["octavo"]
CMD ["--help"]
LABEL org.opencontainers.image.title="Octavo" \
      org.opencontainers.image.description="Serves large language models" \
      org.opencontainers.image.licenses="Apache-2.0"

# Where the default index has only CUDA builds of torch, name another:
# --build-arg TORCH="torch==2.13.0 --index-url ..."
FROM ${BASE} AS cpu-packages
ARG TORCH="torch==2.13.0"
COPY --from=wheel /wheels /wheels
# hadolint ignore=SC2086
RUN python -m venv /opt/octavo \
    && /opt/octavo/bin/pip install --no-cache-dir ${TORCH} \
    && /opt/octavo/bin/pip install --no-cache-dir /wheels/*.whl

# The torch of the default index brings CUDA's libraries along; the driver is the host's.
FROM ${BASE} AS gpu-packages
COPY --from=wheel /wheels /wheels
RUN python -m venv /opt/octavo \
    && /opt/octavo/bin/pip install --no-cache-dir torch==2.13.0 \
    && /opt/octavo/bin/pip install --no-cache-dir /wheels/*.whl

FROM runtime AS gpu
COPY --from=gpu-packages /opt/octavo /opt/octavo

FROM runtime AS cpu
COPY --from=cpu-packages /opt/octavo /opt/octavo
