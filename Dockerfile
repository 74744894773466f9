# syntax=docker/dockerfile:1
# The daemon, without the demo. Settings: docs/src/configuration.md.
# Both bases can be others: any image with Rust and a C compiler, and any with that one's glibc.
ARG BUILD_BASE=rust:1.90.0-slim-bookworm
ARG RUN_BASE=gcr.io/distroless/cc-debian12:nonroot

FROM ${BUILD_BASE} AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY sql sql
# Cargo wants the workspace's manifests and the files they name; the tests are not built.
COPY tests tests
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/build/target \
    cargo build --release --locked --no-default-features \
    && install -D target/release/litellm-webui-sync /out/litellm-webui-sync

# glibc and nothing else: no shell, no package manager, a user that is not root.
FROM ${RUN_BASE}
ARG VERSION=
LABEL org.opencontainers.image.title="litellm-webui-sync" \
      org.opencontainers.image.description="Keeps Open WebUI's accounts, groups and access true to LiteLLM" \
      org.opencontainers.image.licenses="MIT" \
      org.opencontainers.image.version="${VERSION}"
COPY --from=build /out/litellm-webui-sync /usr/local/bin/
# Inside a container only the container's own loopback would reach the default.
ENV LITELLM_WEBUI_SYNC_HTTP=0.0.0.0:9466
EXPOSE 9466
USER 65532:65532
HEALTHCHECK --interval=10s --timeout=6s --start-period=10s --retries=3 \
    CMD ["litellm-webui-sync", "healthcheck"]
ENTRYPOINT ["litellm-webui-sync"]
CMD ["run"]
