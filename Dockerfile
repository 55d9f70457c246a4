# One image for the API, the workers and the migrations. Compose says which of them a container is.
#   docker build .                             computes on processors
#   docker build --build-arg TORCH=cu128 .     and on NVIDIA GPUs, some gigabytes more (tag it -cuda)
FROM python:3.11-slim AS build
ARG TORCH=cpu
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/densityd
# Before the code, which changes more often. The build of torch depends on the argument: no hash.
COPY requirements requirements
RUN /opt/densityd/bin/pip install --require-hashes --requirement requirements/image.lock \
 && pip install uv==0.13.9 \
 && uv pip install --python /opt/densityd/bin/python --torch-backend "$TORCH" \
      --requirement requirements/torch.txt
COPY pyproject.toml README.md LICENSE ./
COPY app app
COPY densityd densityd
COPY flows flows
COPY migrations migrations
COPY models_store models_store
COPY tabular tabular
COPY workers workers
RUN /opt/densityd/bin/pip install --no-deps --no-build-isolation . \
 && /opt/densityd/bin/pip check
# What is in it, for those who look for known holes.
RUN pip install cyclonedx-bom==7.5.0 \
 && cyclonedx-py environment --output-file /opt/densityd/sbom.json /opt/densityd/bin/python
# Loops for processors of the last ten years, and for those with AVX-512; others compile them at each start.
RUN mkdir /opt/densityd/kernels; [ "$(uname -m)" = x86_64 ] || exit 0; \
    for level in v3 v4; do \
      NUMBA_CPU_NAME=x86-64-$level NUMBA_CPU_FEATURES= NUMBA_CACHE_DIR=/opt/densityd/kernels \
      /opt/densityd/bin/python -P -c 'import flows.engine.serving.kernels, \
        flows.engine.training.kernels, flows.engine.maps.registry as maps; maps.compile_all()' || exit 1; \
    done; find /opt/densityd/kernels -name '*.nbc' | grep -q .

# The documentation site, whose generator is no part of the image.
FROM build AS guide
RUN /opt/densityd/bin/pip install --require-hashes --requirement requirements/docs.lock
COPY CHANGELOG.md CONTRIBUTING.md SECURITY.md ./
COPY docs docs
RUN /opt/densityd/bin/sphinx-build --quiet --fail-on-warning --doctree-dir /tmp/guide docs /guide

FROM python:3.11-slim
ARG VERSION=unknown
ARG REVISION=unknown
ARG SOURCE=unknown
LABEL org.opencontainers.image.title=densityd \
      org.opencontainers.image.description="Density estimation with normalising flows, as a REST service" \
      org.opencontainers.image.licenses=Apache-2.0 \
      org.opencontainers.image.version=$VERSION \
      org.opencontainers.image.revision=$REVISION \
      org.opencontainers.image.source=$SOURCE
# As process 1 a program that is still starting, or waits for the database, would ignore SIGTERM.
RUN apt-get update && apt-get install --yes --no-install-recommends tini && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --no-log-init --no-create-home --home-dir /var/lib/densityd \
      --shell /usr/sbin/nologin densityd \
 && install -d -m 0700 -o densityd -g densityd /var/lib/densityd
COPY --from=build /opt/densityd /opt/densityd
COPY --from=guide /guide /opt/densityd/lib/python3.11/site-packages/app/site/guide
ENV PATH=/opt/densityd/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    NUMBA_CACHE_DIR=/tmp/kernels \
    DENSITYD_DATA_DIR=/var/lib/densityd \
    DENSITYD_HOST=0.0.0.0
COPY --chmod=0755 deploy/entrypoint /usr/local/bin/densityd-entrypoint
USER densityd
WORKDIR /var/lib/densityd
VOLUME /var/lib/densityd
EXPOSE 8000
ENTRYPOINT ["tini", "--", "densityd-entrypoint"]
CMD ["api"]
