FROM python:3.13-slim AS base

# One directory holds all, so that the image takes it over in one layer and no path names a version of Python.
FROM base AS build
WORKDIR /opt/users-worker
COPY requirements/runtime.txt /build/
RUN pip install --no-cache-dir --require-hashes --only-binary :all: --target . -r /build/runtime.txt
# Copied, not built: a wheel would need hatchling, which the lock of the run-time dependencies does not have.
COPY arqonce arqonce
COPY db db
COPY jobs jobs
COPY people people
COPY worker worker
COPY web web
# Compiled here, because the image's user cannot write.
RUN python -m compileall -q arqonce db jobs people worker web \
    && printf '%s\n' '#!/usr/local/bin/python' 'from worker.__main__ import main' 'main()' > bin/users-worker \
    && printf '%s\n' '#!/usr/local/bin/python' 'from web.__main__ import main' 'main()' > bin/users-web \
    && printf '%s\n' '#!/usr/local/bin/python' 'from arqonce.main import main' 'main()' > bin/arqonce \
    && chmod 755 bin/users-worker bin/users-web bin/arqonce

FROM base
LABEL org.opencontainers.image.title="users-worker" \
      org.opencontainers.image.description="A background worker that stays arq on the wire and persists to PostgreSQL asynchronously" \
      org.opencontainers.image.licenses="MIT"
COPY --from=build /opt/users-worker /opt/users-worker
ENV PATH=/opt/users-worker/bin:$PATH \
    PYTHONPATH=/opt/users-worker \
    WORKER_HEALTH_FILE=/tmp/users-worker-health
# A number, so that Kubernetes' runAsNonRoot can judge it; without an account, because it owns nothing.
USER 10001:10001
STOPSIGNAL SIGTERM
# Each check takes about a second of CPU: often enough to notice, seldom enough not to cost a worker's throughput.
HEALTHCHECK --interval=30s --timeout=10s --start-period=30s --retries=3 CMD ["users-worker", "health"]
ENTRYPOINT ["users-worker"]
CMD ["run"]
