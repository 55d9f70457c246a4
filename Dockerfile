# One image for the API, the workers and the migrations. Compose says which of them a container is.
FROM python:3.11-slim AS build
# A CPU-only image is several gigabytes smaller: name the index that serves such builds of torch,
# docker build --build-arg PIP_EXTRA_INDEX_URL=...
ARG PIP_EXTRA_INDEX_URL
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /src
RUN python -m venv /opt/densityd
# Before the code, which changes more often. The build of torch depends on the index: no hash.
COPY requirements requirements
RUN /opt/densityd/bin/pip install --require-hashes --requirement requirements/run.lock \
 && /opt/densityd/bin/pip install --requirement requirements/torch.txt
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
# Kernels for processors like this one; others compile them at each start.
RUN NUMBA_CACHE_DIR=/opt/densityd/kernels /opt/densityd/bin/python -P -c 'import flows.engine.serving.kernels, \
      flows.engine.training.kernels, flows.engine.maps.registry as maps; maps.compile_all()' \
 && find /opt/densityd/kernels -name '*.nbc' | grep -q .

# The documentation site, whose generator is no part of the image.
FROM build AS guide
RUN /opt/densityd/bin/pip install --require-hashes --requirement requirements/docs.lock
COPY CHANGELOG.md CONTRIBUTING.md SECURITY.md ./
COPY docs docs
RUN /opt/densityd/bin/sphinx-build --quiet --fail-on-warning --doctree-dir /tmp/guide docs /guide

FROM python:3.11-slim
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
USER densityd
WORKDIR /var/lib/densityd
VOLUME /var/lib/densityd
EXPOSE 8000
# numba uses a folder of kernels only if it could write there, and the image's own is read-only.
ENTRYPOINT ["/bin/sh", "-c", "[ -e /tmp/kernels ] || cp -R /opt/densityd/kernels /tmp/kernels; exec densityd \"$@\"", "densityd"]
CMD ["api"]
