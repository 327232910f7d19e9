# docker build -t vertebra . && docker run --rm -v "$PWD:/work" vertebra --help
# On GPUs: --gpus all, with NVIDIA's container toolkit on the host (the torch that pip installs brings its CUDA along),
# and --shm-size 8g or --ipc host for the loader processes' shared memory. Runs belong to the host's user with
# --user "$(id -u):$(id -g)".
FROM python:3.12-slim
WORKDIR /opt/vertebra
COPY . .
RUN pip install --no-cache-dir ".[timm]" && useradd --create-home vertebra
USER vertebra
WORKDIR /work
ENTRYPOINT ["vertebra"]
