# edge-train in a container, as an ordinary user. Four images, one for each --target:
#
#   device   ONNX Runtime and NumPy, no torch; for every architecture that has their wheels
#   jetson   `device` that asks for the board's GPU. It computes on the CPU, unless ONNXRUNTIME names
#            the vendor's wheel
#   cuda     `desk` that asks for an NVIDIA GPU, and computes there where one is given (--gpus all)
#   desk     torch and every engine; built where no target is named
#
#   docker build --target device -t edge-train-device .
#   docker run --rm --user "$(id -u):$(id -g)" -v "$PWD:/work" edge-train-device doctor
#
# docs/containers.md says the rest. DEVICE_IMAGE is the base of `device` and `jetson`, DESK_IMAGE of
# `desk` and `cuda`. A base image is Debian, Ubuntu or a child of them; where it has
# no Python with venv, the distribution's is installed. The secret `pip` is a pip.conf that is read
# during the build and is in no image.

ARG DEVICE_IMAGE=python:3.11-slim
ARG DESK_IMAGE=python:3.11-slim


FROM ${DEVICE_IMAGE} AS device-base
RUN --mount=type=bind,source=docker,target=/docker sh /docker/base.sh

# ONNXRUNTIME is what pip takes for the engine: `onnxruntime-gpu==1.23.0`, the address of a wheel, or
# a wheel in the folder docker/ (`./docker/NAME.whl`); ONNXRUNTIME_INDEX, where it looks in addition.
FROM device-base AS device-build
ARG ONNXRUNTIME=
ARG ONNXRUNTIME_INDEX=
WORKDIR /src
COPY . .
RUN --mount=type=secret,id=pip,target=/etc/pip.conf sh docker/install.sh device

# LOGNAME is the name of a user that has none: any --user will do.
FROM device-base AS device
COPY --from=device-build /opt/edge-train /opt/edge-train
ENV PATH=/opt/edge-train/bin:$PATH HOME=/work LOGNAME=edge
USER 10001:10001
WORKDIR /work
ENTRYPOINT ["edge-train"]
CMD ["--help"]

FROM device AS jetson
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=all


FROM ${DESK_IMAGE} AS desk-base
RUN --mount=type=bind,source=docker,target=/docker sh /docker/base.sh

# TORCH_INDEX: a package index with a torch for the CPU alone, which is several gigabytes smaller than
# the usual wheel for Linux. That one brings CUDA with it; only the driver comes from the host.
FROM desk-base AS desk-build
ARG TORCH_INDEX=
WORKDIR /src
COPY . .
RUN --mount=type=secret,id=pip,target=/etc/pip.conf sh docker/install.sh desk

FROM desk-base AS desk-image
COPY --from=desk-build /opt/edge-train /opt/edge-train
ENV PATH=/opt/edge-train/bin:$PATH HOME=/work LOGNAME=edge
USER 10001:10001
WORKDIR /work
ENTRYPOINT ["edge-train"]
CMD ["--help"]

FROM desk-image AS cuda
ENV NVIDIA_VISIBLE_DEVICES=all NVIDIA_DRIVER_CAPABILITIES=compute,utility

FROM desk-image AS desk
