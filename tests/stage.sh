#!/bin/sh
# Runs one stage and says how long it took: `stage.sh NAME COMMAND...`; `--begin` and `--summary` frame a list of them.
# Which tests failed or were run again, tests/conftest.py writes to $SERINUS_STAGE_NOTES; that comes last.
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
SERINUS_STAGE_NOTES=$(mktemp) || exit 1
export SERINUS_STAGE_NOTES
printf '\n== %s\n' "$name"
start=$(date +%s)
"$@"
code=$?
line=$(printf '%-16s %5d s  %s' "$name" $(($(date +%s) - start)) "$([ $code = 0 ] && echo ok || echo "failed ($code)")")
printf '== %s\n' "$line"
printf '%s\n' "$line" >> "$log"
sed 's/^/    /' "$SERINUS_STAGE_NOTES" | tee -a "$log"
rm -f "$SERINUS_STAGE_NOTES"
exit $code
