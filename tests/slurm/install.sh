#!/bin/sh
# Slurm and munge for the tests beside this file. Where they can't be installed, the tests say so and are skipped.
set -eu
PATH=$PATH:/usr/sbin:/sbin
packages="slurmctld slurmd slurm-client munge"
if command -v slurmctld >/dev/null && command -v slurmd >/dev/null && command -v sbatch >/dev/null; then
    exit 0
fi
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
    apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $packages && exit 0
fi
echo "Slurm isn't installed and can't be by this user; as root: apt-get install --no-install-recommends $packages" >&2
