#!/bin/bash
# make_certs DIR CLUSTER NODE...: an authority for a cluster and a certificate for each node.
#
# Writes DIR/ca.crt, DIR/ca.key and, for each node, DIR/NODE.crt and DIR/NODE.key. Run again with
# further nodes it keeps the authority and the certificates that are there. Keys are EC P-256,
# readable by their owner only; the authority lasts ten years, a certificate two. The node id is
# common name and DNS name, as the peers check it.
#
# To be sourced, or run as a program. Needs openssl.

make_certs() {
  if [ $# -lt 3 ]; then
    echo "usage: make_certs DIR CLUSTER NODE..." >&2
    return 2
  fi
  local dir=$1 cluster=$2 node
  shift 2
  (
    set -e
    umask 077
    mkdir -p "$dir"
    if [ ! -e "$dir/ca.crt" ]; then
      openssl ecparam -name prime256v1 -genkey -noout -out "$dir/ca.key"
      openssl req -x509 -new -sha256 -key "$dir/ca.key" -days 3650 -out "$dir/ca.crt" \
        -subj "/O=packmoor/CN=$cluster authority" \
        -addext "basicConstraints=critical,CA:TRUE,pathlen:0" \
        -addext "keyUsage=critical,keyCertSign,cRLSign"
    fi
    for node in "$@"; do
      [ ! -e "$dir/$node.crt" ] || continue
      openssl ecparam -name prime256v1 -genkey -noout -out "$dir/$node.key"
      printf '%s\n' \
        "subjectAltName=DNS:$node" \
        "basicConstraints=critical,CA:FALSE" \
        "keyUsage=critical,digitalSignature" \
        "extendedKeyUsage=serverAuth,clientAuth" >"$dir/$node.ext"
      openssl req -new -sha256 -key "$dir/$node.key" -subj "/O=packmoor/CN=$node" |
        openssl x509 -req -sha256 -CA "$dir/ca.crt" -CAkey "$dir/ca.key" \
          -set_serial "0x$(openssl rand -hex 16)" -days 730 -extfile "$dir/$node.ext" \
          -out "$dir/$node.crt.new" 2>/dev/null
      mv "$dir/$node.crt.new" "$dir/$node.crt"
      rm -f "$dir/$node.ext"
    done
    chmod 644 "$dir"/*.crt
  )
}

# Run as a program, not sourced.
case ${0##*/} in
  make_certs.sh) make_certs "$@" ;;
esac
