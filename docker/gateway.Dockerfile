# syntax=docker/dockerfile:1
# The gateway: no TensorFlow, no shell, no root, nothing written outside /tmp.
#   docker build -f docker/gateway.Dockerfile --target gateway -t sightline-gateway .
#   docker build -f docker/gateway.Dockerfile --target faces -t sightline-gateway:faces .

# Must be the Python of the last stage (Debian 12's 3.11): packages are compiled for it.
FROM python:3.11.14-slim-bookworm AS tools
WORKDIR /build
RUN python3 -m venv tools && tools/bin/pip install --no-cache-dir --quiet uv==0.13.8 setuptools==80.10.2
COPY docker/trim.sh .
ENV UV_PYTHON=/build/tools/bin/python UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1

FROM tools AS project
COPY pyproject.toml README.md ./
COPY serving serving
COPY clients clients
RUN tools/bin/uv pip install --quiet --no-deps --no-build-isolation --target /project . \
 && rm -r /project/serving/model_server

FROM tools AS packages
COPY locks/gateway.txt .
RUN --mount=type=cache,target=/root/.cache/uv \
    tools/bin/uv pip install --quiet --no-deps --require-hashes --target /packages -r gateway.txt && ./trim.sh /packages

FROM tools AS face-packages
COPY locks/gateway-faces.txt .
RUN --mount=type=cache,target=/root/.cache/uv \
    tools/bin/uv pip install --quiet --no-deps --require-hashes --target /packages -r gateway-faces.txt \
 && ./trim.sh /packages

# Python and the C libraries that wheels need. Its tags move, so the digest names the image.
FROM gcr.io/distroless/python3-debian12:nonroot@sha256:7d1042ce588ab97019fe95c24ffca7bc5a82ccdac572511d5e09bda4435c89c5 AS runtime
ENV PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    SIGHTLINE_HOST=0.0.0.0 \
    SIGHTLINE_BACKEND=tf-serving:8500
USER 65532:65532
WORKDIR /tmp
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=5s --start-period=20s --retries=3 \
    CMD ["/usr/bin/python3", "-c", "import os, urllib.request as r; r.urlopen(f'http://127.0.0.1:{os.environ.get(\"SIGHTLINE_PORT\", 8000)}/healthz', timeout=4)"]
ENTRYPOINT ["/usr/bin/python3", "-m", "sightline"]
CMD ["serve"]

# With faces: dlib and a PostgreSQL client. Set SIGHTLINE_FACES_URL, or mount /data.
FROM runtime AS faces
ENV SIGHTLINE_FACES_URL=sqlite:////data/faces.db
COPY --from=face-packages /packages /app
COPY --from=project /project /app

FROM runtime AS gateway
COPY --from=packages /packages /app
COPY --from=project /project /app
