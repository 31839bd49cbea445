#!/bin/bash
# Does what the official image's entrypoint does for a user that is not root, which has no protected mode either.
set -euo pipefail
umask 0077
exec "$@" --protected-mode no
