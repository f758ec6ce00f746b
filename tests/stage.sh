#!/bin/sh
# Runs one stage and says how long it took: `stage.sh NAME COMMAND...`; `--begin` and `--summary` frame a list of them.
set -u
log=${TMPDIR:-/tmp}/serinus-stages.$(id -u)
case $1 in
--begin) : > "$log"; exit 0 ;;
--summary)
    printf '\nstage timings\n'
    cat "$log"
    exit 0
    ;;
esac
name=$1
shift
printf '\n== %s\n' "$name"
start=$(date +%s)
"$@"
code=$?
line=$(printf '%-16s %5d s  %s' "$name" $(($(date +%s) - start)) "$([ $code = 0 ] && echo ok || echo "failed ($code)")")
printf '== %s\n' "$line"
printf '%s\n' "$line" >> "$log"
exit $code
