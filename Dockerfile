# syntax=docker/dockerfile:1
#
# Two images:
#
#   docker build -t troupe/trouped .
#   docker build -t troupe/runner --target runner .
#
# server  trouped, troupe-runner and troupe-files on SERVER_BASE. No shell, no
#         other file.
# runner  the default environment of commands, and the troupe client. It holds
#         no troupe-runner: that comes from the server image, so that any other
#         image can take this one's place.
#
# docs/images.md says how to build them without a daemon, a registry or a network.

ARG GO_IMAGE=golang:1.26
ARG SERVER_BASE=scratch
ARG RUNNER_BASE=debian:12-slim

# The compiler runs on the machine that builds, whatever it builds for.
FROM --platform=$BUILDPLATFORM ${GO_IMAGE} AS build
# Where GO_IMAGE is a plain system with Go mounted into it, nothing has set these.
ENV PATH=/usr/local/go/bin:$PATH GOMODCACHE=/go/pkg/mod GOCACHE=/go/cache GOTOOLCHAIN=local GOFLAGS=-buildvcs=false
# Go's own defaults when not given. GOPROXY=file:///... takes modules from a
# directory; GOSUMDB=off then keeps go from asking a server about sums.
ARG GOPROXY
ARG GOSUMDB
WORKDIR /src
# Before the sources: they change more often.
COPY go.mod go.sum ./
RUN --mount=type=cache,target=/go/pkg/mod go mod download
COPY . .
ARG TARGETOS
ARG TARGETARCH
ARG VERSION=dev
# The flags are those of the Makefile. Modes are set here, since COPY --chmod
# makes a layer of its own on some builders.
RUN --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/go/cache \
    mkdir -p /out/server /out/client \
 && export CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
 && go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /out/server/ ./cmd/trouped ./cmd/troupe-runner ./cmd/troupe-files \
 && go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /out/client/ ./cmd/troupe \
 && chmod 0555 /out/server/* /out/client/*


FROM ${SERVER_BASE} AS server
ARG VERSION=dev
LABEL org.opencontainers.image.title="trouped" org.opencontainers.image.version=$VERSION
COPY --from=build /out/server/ /
# A number, so that Kubernetes can see that it is not root.
USER 65532:65532
EXPOSE 8003 9090
ENTRYPOINT ["/trouped"]


FROM ${RUNNER_BASE} AS runner
# Empty: what RUNNER_BASE has.
ARG PACKAGES="bash ca-certificates coreutils curl git less procps python3 unzip xz-utils"
RUN set -eu; \
    if [ -n "$PACKAGES" ]; then \
        apt-get update; \
        DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends $PACKAGES; \
        rm -rf /var/lib/apt/lists/* /var/cache/apt/*.bin /var/log/apt /var/log/dpkg.log /var/log/alternatives.log; \
    fi; \
    if ! grep -q '^[^:]*:[^:]*:1000:' /etc/passwd; then \
        echo 'troupe:x:1000:' >>/etc/group; \
        echo 'troupe:x:1000:1000::/workspace:/bin/bash' >>/etc/passwd; \
    fi; \
    mkdir -p /workspace; \
    chown 1000:1000 /workspace
COPY --from=build /out/client/ /usr/local/bin/
ARG VERSION=dev
LABEL org.opencontainers.image.title="troupe runner" org.opencontainers.image.version=$VERSION
ENV HOME=/workspace LANG=C.UTF-8
WORKDIR /workspace
USER 1000:1000
CMD ["/bin/bash"]


# What is built when no target is named.
FROM server
