#!/bin/sh
# The executor takes no words after the command that cancels.
exec "$(dirname "$0")/scheduler.sh" cancel "$@"
