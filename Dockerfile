# edge-train in a container, as an ordinary user:
#
#   docker build -t edge-train .                          desk engines, CPU
#   docker build -t edge-train --build-arg BASE=cuda .    desk engines, NVIDIA GPU; run with --gpus all
#   docker build -t edge-train --build-arg BASE=jetson .  device engine only, arm64, no torch
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" edge-train run --mem 8GB
#
# JETSON_IMAGE may name the vendor's image for your board (it needs Python 3.10 or newer with venv).
# TORCH_INDEX may name a package index that carries a CPU-only torch, for a smaller image.

ARG BASE=cpu
ARG JETSON_IMAGE=python:3.11-slim

FROM python:3.11-slim AS base-cpu
ENV EXTRA=desk

FROM nvidia/cuda:12.8.1-runtime-ubuntu24.04 AS base-cuda
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
ENV EXTRA=desk

FROM ${JETSON_IMAGE} AS base-jetson
ENV EXTRA=device

FROM base-${BASE} AS build
ARG TORCH_INDEX=
WORKDIR /src
COPY constraints.txt ./
RUN python3 -m venv /opt/edge-train \
    && if [ "$EXTRA" = desk ]; then \
         /opt/edge-train/bin/pip install --no-cache-dir -c constraints.txt \
           ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch; \
       fi
COPY . .
RUN /opt/edge-train/bin/pip install --no-cache-dir -c constraints.txt ".[$EXTRA]"

FROM base-${BASE}
COPY --from=build /opt/edge-train /opt/edge-train
ENV PATH=/opt/edge-train/bin:$PATH
# The id 10001 is free in every base. Models from the hub are kept under HOME, with the runs.
RUN useradd --no-create-home --uid 10001 edge && install -d -m 1777 /work
ENV HOME=/work
USER edge
WORKDIR /work
ENTRYPOINT ["edge-train"]
CMD ["--help"]
