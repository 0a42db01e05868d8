#!/bin/sh
# start.sh PASSWORDS MAXMEMORY [OPTION..]: the queue's server, with the users of users.acl, in the working directory.
# PASSWORDS is a folder with a file for each user; the server is given their digests alone.
set -eu
passwords=$1 maxmemory=$2
shift 2
acl=${TMPDIR:-/tmp}/users.acl
umask 077
while read -r word user rules; do
  digest=
  if [ "$user" != default ]; then
    if [ ! -s "$passwords/$user" ]; then
      echo "start.sh: $passwords/$user must hold the password of the user $user" >&2
      exit 2
    fi
    digest="#$(tr -d '\n' < "$passwords/$user" | sha256sum | cut -d ' ' -f 1)"
  fi
  printf '%s %s %s %s\n' "$word" "$user" "$rules" "$digest"
done < "$(dirname "$0")/users.acl" > "$acl"
exec redis-server --aclfile "$acl" --appendonly yes --appendfsync everysec --save '' \
  --maxmemory "$maxmemory" --maxmemory-policy noeviction "$@"
