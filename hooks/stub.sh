#!/bin/sh
# effai's hook, version 1. `effai hooks remove` takes it away and puts back what was here before.
name=${0##*/}
before=$0.before-effai
if [ "$name" = pre-push ]; then
    # What git says of the refs is for both.
    refs=$(cat)
    if [ -x "$before" ]; then printf '%s\n' "$refs" | "$before" "$@" || exit $?; fi
elif [ -x "$before" ]; then
    "$before" "$@" || exit $?
fi
[ "${EFFAI_HOOKS:-1}" = 0 ] && exit 0
if ! command -v effai > /dev/null 2>&1; then
    echo "effai's $name hook did nothing: effai is not on the PATH" >&2
    exit 0
fi
if [ "$name" = pre-push ]; then
    printf '%s\n' "$refs" | effai hook "$name" "$@"
else
    exec effai hook "$name" "$@"
fi
