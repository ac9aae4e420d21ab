#!/usr/bin/env bash
# make.sh TXFS NAME: packs stores as the txfs at TXFS leaves them into NAME-settled.tgz, NAME-killed-I.tgz and, with one that has them,
# NAME-open.tgz and NAME-shared.tgz. It needs root and strace. What lies here was made once, by the last txfs that wrote the version it is
# called after, and is not made anew.
set -euo pipefail
txfs=$(realpath "$1") name=$2 here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
umask 022

fill() { # WORD: a source whose generations differ by every kind of operation but those that move directories
    rm -rf s && mkdir -p s/sub/deep s/dir-kept
    printf %s "$1" >s/index.html
    printf same >s/same.txt
    printf %s "$1 deep" >s/sub/deep/a
    printf %s "only $1" >"s/only-$1"
    printf kept >s/dir-kept/x
    ln -s "$2" s/link
    chmod 750 s/sub
}
pack() { # NAME DIR
    tar -C "$2" --format=posix --numeric-owner --sort=name -czf "$here/$1.tgz" .
}
publish() { # WORD TARGET MESSAGE
    fill "$1" "$2"
    "$txfs" publish -m "$3" "$work/now/dist" s >/dev/null 2>&1
}
fresh() { rm -rf now && mkdir now; }

fresh
fill one index.html && mkdir s/dir-one && printf one >s/dir-one/x
"$txfs" publish -m first "$work/now/dist" s >/dev/null 2>&1
publish two same.txt second
pack "$name-settled" now

# Killed as the operations are carried out: between the first and the second half, and before the last.
for call in 3 5; do
    fresh
    publish one index.html first
    publish two same.txt second
    fill three index.html
    strace -f -o /dev/null -e trace=renameat2 -e "inject=renameat2:signal=KILL:when=$call" \
        "$txfs" publish "$work/now/dist" s >/dev/null 2>&1 || true
    test -e now/.dist.txfs/journal -o -e now/.dist.txfs/journal.new
    pack "$name-killed-$call" now
done

"$txfs" begin --help 2>&1 | grep -q -- --at || exit 0
# Open transactions belong to a boot. Where that is not told they belong to any.
fresh
unshare --mount bash -euc '
    mount --bind /dev/null /proc/sys/kernel/random/boot_id
    mkdir s1 && printf one >s1/index.html
    "$0" publish --keep 3 now/dist s1 >/dev/null
    printf whole >"$("$0" begin now/dist)/index.html"
    printf part >"$("$0" begin --at docs now/dist)/page.html"
' "$txfs"
pack "$name-open" now

fresh
"$txfs" publish now/dist s1 >/dev/null 2>&1
"$txfs" share --group 4242 now/dist >/dev/null 2>&1
pack "$name-shared" now
