#!/bin/sh
set -e
day=$(date -u -d "$1 -1 day" +%F)
mkdir -p "$2"
echo "Everything that happened on $day" | tee "$2/$day.txt"
