# syntax=docker/dockerfile:1
# Train and publish models: writes to /models and /reports; mount both.
#   docker build -f docker/export.Dockerfile -t sightline-export .
#   docker run --rm -u "$(id -u):$(id -g)" -v ./models:/models -v ./reports:/reports sightline-export digits

FROM python:3.11.14-slim-bookworm AS tools
WORKDIR /build
RUN python3 -m venv tools && tools/bin/pip install --no-cache-dir --quiet uv==0.13.8 setuptools==80.10.2
ENV UV_PYTHON=/build/tools/bin/python UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1

FROM tools AS project
COPY pyproject.toml README.md ./
COPY serving serving
COPY export export
COPY clients clients
RUN tools/bin/uv pip install --quiet --no-deps --no-build-isolation --target /project .

FROM tools AS packages
COPY locks/serve.txt .
RUN --mount=type=cache,target=/root/.cache/uv \
    tools/bin/uv pip install --quiet --no-deps --require-hashes --target /packages -r serve.txt

FROM python:3.11.14-slim-bookworm AS export
ENV PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    HOME=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib
COPY --from=packages /packages /app
COPY --from=project /project /app
USER 65532:65532
# so that the default folders, `models` and `reports`, are /models and /reports
WORKDIR /
HEALTHCHECK NONE
ENTRYPOINT ["python3", "-m", "sightline", "export"]
CMD ["--help"]
