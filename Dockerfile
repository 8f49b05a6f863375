# syntax=docker/dockerfile:1
# docker build -t howdah-server .                      everything, runs `howdah up`
# docker build --target worker -t howdah .             what the specs' pipelines run in on a cluster
ARG BASE=debian:bookworm
FROM ${BASE} AS worker
# Another index, or a folder inside the build context with wheels such as torch's CPU build.
ARG PIP_INDEX_URL=
ARG PIP_FIND_LINKS=
ENV DEBIAN_FRONTEND=noninteractive PYTHONDONTWRITEBYTECODE=1
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends bash bubblewrap ca-certificates fuse libfuse2 make python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /howdah
COPY . .
RUN PIP_INDEX_URL="$PIP_INDEX_URL" PIP_FIND_LINKS="$PIP_FIND_LINKS" make env && rm -rf /root/.cache
ENV PATH=/howdah/.venv/bin:$PATH

FROM worker
VOLUME /data
STOPSIGNAL SIGINT
CMD ["howdah", "up", "--data", "/data"]
