# syntax=docker/dockerfile:1
# The embedded model server, for arm64 and wherever tensorflow/serving is not available. Same ports, flags and files.
#   docker build -f docker/model-server.Dockerfile -t sightline-model-server .

FROM python:3.11.14-slim-bookworm AS tools
WORKDIR /build
RUN python3 -m venv tools && tools/bin/pip install --no-cache-dir --quiet uv==0.13.8 setuptools==80.10.2
COPY docker/trim.sh .
ENV UV_PYTHON=/build/tools/bin/python UV_LINK_MODE=copy UV_COMPILE_BYTECODE=1

FROM tools AS project
COPY pyproject.toml README.md ./
COPY serving serving
COPY clients/python clients/python
RUN tools/bin/uv pip install --quiet --no-deps --no-build-isolation --target /project .

FROM tools AS packages
COPY locks/model-server.txt .
RUN --mount=type=cache,target=/root/.cache/uv \
    tools/bin/uv pip install --quiet --no-deps --require-hashes --target /packages -r model-server.txt

FROM python:3.11.14-slim-bookworm AS model-server
ENV PYTHONPATH=/app \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
COPY --from=packages /packages /app
COPY --from=project /project /app
USER 65532:65532
WORKDIR /tmp
EXPOSE 8500 8501
# The ports of tensorflow/serving's entry point; they open when the first models are available.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python3", "-c", "import socket; socket.create_connection(('127.0.0.1', 8500), 4)"]
ENTRYPOINT ["python3", "-m", "serving.model_server", "--host=0.0.0.0", "--port=8500", "--rest_api_port=8501"]
CMD ["--model_config_file=/models/serving-config/models.config", "--model_config_file_poll_wait_seconds=30", "--enable_batching", "--batching_parameters_file=/models/serving-config/batching.config", "--monitoring_config_file=/models/serving-config/monitoring.config"]
