# The program as an image of its own: nothing else is in it.
#
#	docker build -t upwell --build-arg VERSION=$(git describe --always) .
#	docker run --read-only --env-file worker.env upwell
#
# It needs BuildKit, which Docker has used since version 23; before that, set
# DOCKER_BUILDKIT=1. With --platform linux/arm64 it is cross-compiled.

# GO is the image that compiles.
ARG GO=golang:1.26
FROM --platform=$BUILDPLATFORM ${GO} AS build
WORKDIR /src
ARG VERSION TARGETOS TARGETARCH
ENV GOMODCACHE=/go/pkg/mod GOCACHE=/root/.cache/go-build
RUN --mount=type=bind,target=. --mount=type=cache,target=/go/pkg/mod --mount=type=cache,target=/root/.cache/go-build \
	CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
	go build -trimpath -buildvcs=false -ldflags "-s -w -X main.stamped=$VERSION" -o /out/upwell ./cmd/upwell && \
	mkdir -m 1777 /out/tmp

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/
COPY --from=build /out/ /
COPY LICENSE /licences/
COPY infra/licences /licences
# Where the root is read-only there is a volume here, which ECS gives the folder's mode.
VOLUME ["/tmp"]
USER 65532:65532
# A worker answers probes here, which HEALTHCHECK and ECS ask through the program.
ENV UPWELL_HTTP=127.0.0.1:9464
HEALTHCHECK --interval=30s --timeout=6s --start-period=30s --retries=3 CMD ["/upwell", "health"]
ENTRYPOINT ["/upwell"]
CMD ["worker"]
