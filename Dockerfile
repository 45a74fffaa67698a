# The image of the node agent, the engine and the control plane. `docker build -t ambient .`
# `make image` builds this very file without docker and without a registry: see hack/image/.
# Only the stages before the last have a compiler; the last is filled by hand: no shell, no package manager.
FROM debian:12-slim AS build
WORKDIR /src
COPY hack/image/build-packages.txt hack/image/build-packages.sh hack/image/
RUN ["bash", "hack/image/build-packages.sh"]

# The root file system: the files of some Debian packages.
FROM build AS root
COPY hack/image/root-packages.txt hack/image/root.sh hack/image/
RUN ["bash", "hack/image/root.sh", "/out"]

# The Python libraries, in /opt/ambient: they change rarely, and the layer with them.
FROM build AS libraries
ARG PIP_CERT
COPY hack/image/libraries.sh hack/image/
COPY pyproject.toml ./
RUN ["bash", "hack/image/libraries.sh"]

# The compiled parts; then Ambient itself, which brings them along.
FROM libraries AS app
COPY ambient/__init__.py ambient/
COPY engine engine
COPY bpf bpf
RUN make -s -C engine OUT=/src/ambient/native && make -s -C bpf OUT=/src/ambient/native
COPY . .
RUN ["bash", "hack/image/app.sh", "/out"]

FROM scratch
COPY --from=root /out /
COPY --from=libraries /opt/ambient /opt/ambient
COPY --from=app /out /
ENV PATH=/opt/ambient/bin:/usr/bin PYTHONUNBUFFERED=1
ENTRYPOINT ["/opt/ambient/bin/ambient"]
