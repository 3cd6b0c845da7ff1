# The program, certificate authorities, licences, and nothing else: no shell, no packages,
# no root. It is cross-compiled, so no platform is emulated.
#
#	docker build -t hindsight:0.1.0 --build-arg VERSION=0.1.0 .
#
# For amd64 and arm64, into a registry of yours:
#
#	docker buildx build --platform linux/amd64,linux/arm64 --build-arg VERSION=0.1.0 \
#	  -t YOUR-REGISTRY/hindsight:0.1.0 --push .

FROM --platform=$BUILDPLATFORM golang:1.26 AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION
ARG TARGETOS
ARG TARGETARCH
RUN CGO_ENABLED=0 GOOS=$TARGETOS GOARCH=$TARGETARCH \
    go build -trimpath -ldflags "-s -w -X main.version=$VERSION" -o /hindsight ./cmd/hindsight

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /hindsight /hindsight
COPY LICENSE NOTICE /
# A number, because runAsNonRoot cannot resolve a name.
USER 65532:65532
ENTRYPOINT ["/hindsight"]
CMD ["run"]
