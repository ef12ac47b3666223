#!/usr/bin/env bash
# Removes one guard at a time and runs the model tests, which must notice: a test that passes without the guard proves nothing
# about it. Each mutant is a patch under scripts/mutants, whose first lines say what it takes away.
#
#   scripts/mutants.sh store|queue [mutant...]
#
# Patches the working tree and puts it back, so it refuses to run where one of the patched folders has changes.
set -euo pipefail
cd "$(dirname "$0")/.."

case "${1:-}" in
  store) folder=libs/store/src; tests=(--test conformance some_serial_order) ;;
  queue) folder=libs/queue/src; tests=(--test model) ;;
  *) sed -n '2,8p' "$0"; exit 2 ;;
esac
kind=$1
shift
# The whole workspace decides which features its dependencies have: so nothing is compiled that `make test` does not need.
command=(cargo test -q --workspace)
if ! git diff --quiet HEAD -- "$folder"; then
  echo "$folder has changes; commit or stash them first" >&2
  exit 2
fi
patches=()
if [ $# -gt 0 ]; then
  for name in "$@"; do patches+=("scripts/mutants/$kind/$name.patch"); done
else
  patches=("scripts/mutants/$kind"/*.patch)
fi

log=$(mktemp)
restore() { git checkout -q HEAD -- "$folder"; rm -f "$log"; }
trap restore EXIT
missed=0
for patch in "${patches[@]}"; do
  name=$(basename "$patch" .patch)
  git apply "$patch"
  if ! "${command[@]}" "${tests[@]}" --no-run >"$log" 2>&1; then
    printf '%-28s DOES NOT COMPILE\n' "$name"
    missed=$((missed + 1))
  elif "${command[@]}" "${tests[@]}" >"$log" 2>&1; then
    printf '%-28s MISSED\n' "$name"
    missed=$((missed + 1))
  else
    printf '%-28s caught\n' "$name"
  fi
  git checkout -q HEAD -- "$folder"
done
if [ "$missed" -gt 0 ]; then
  echo "$missed of ${#patches[@]} mutants were not caught"
  exit 1
fi
echo "all ${#patches[@]} mutants were caught"
