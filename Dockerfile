# docker build -t howdah-server .                      everything, runs `howdah up`
# docker build --target worker -t howdah .             what the specs' pipelines run in
#
# BASE is any Debian 12. Certificates and mirrors that a network of your own needs belong into it.
ARG BASE=debian:bookworm
FROM ${BASE} AS worker
# Another index, or a folder (in the build context or in BASE) with wheels such as torch's CPU build.
ARG PIP_INDEX_URL=
ARG PIP_FIND_LINKS=
ENV DEBIAN_FRONTEND=noninteractive PYTHONDONTWRITEBYTECODE=1
RUN apt-get update -qq \
    && apt-get install -y -qq --no-install-recommends bash bubblewrap ca-certificates fuse libfuse2 make python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /howdah
COPY . .
RUN PIP_INDEX_URL="$PIP_INDEX_URL" PIP_FIND_LINKS="$PIP_FIND_LINKS" make env && rm -rf .venv-tools /root/.cache
ENV PATH=/howdah/.venv/bin:$PATH

FROM worker
VOLUME /data
CMD ["howdah", "up", "--data", "/data"]
