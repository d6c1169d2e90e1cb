# Both programs in one image: `weir` is the entry point, `weir-origin` stands beside it.
#   docker build -t weir .
#   docker run -p 8080:8080 -v ./config.yaml:/etc/weir/config.yaml:ro weir

FROM rust:1-bookworm AS build
# zlib-ng, which Pingora's compression links, is built by cmake.
RUN apt-get update \
 && apt-get install -y --no-install-recommends cmake \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package weir --package weir-origin --bins

FROM debian:bookworm-slim
# The certificates by which upstreams are verified.
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin weir
COPY --from=build /src/target/release/weir /src/target/release/weir-origin /usr/local/bin/
COPY config.yaml /etc/weir/config.yaml
USER 10001
EXPOSE 8080
# Finishes requests in flight, then ends; give it `--stop-timeout` above `shutdown.grace`.
STOPSIGNAL SIGTERM
ENTRYPOINT ["weir"]
CMD ["run", "/etc/weir/config.yaml"]
