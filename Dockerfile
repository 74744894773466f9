# The daemon without the demo. Settings: see README.md, "Configuration".
FROM rust:1-slim-bookworm AS build
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY src src
COPY sql sql
# Only their manifests and the paths they name; the tests are not built.
COPY tests tests
RUN cargo build --release --locked --no-default-features

FROM debian:bookworm-slim
COPY --from=build /build/target/release/litellm-webui-sync /usr/local/bin/
# Inside a container only the container's own loopback would reach the default.
ENV LITELLM_WEBUI_SYNC_HTTP=0.0.0.0:9466
EXPOSE 9466
USER nobody
ENTRYPOINT ["litellm-webui-sync"]
CMD ["run"]
