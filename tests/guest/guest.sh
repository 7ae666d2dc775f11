#!/bin/bash
# guest.sh - run a shell script inside a throw-away Linux guest that mounts a
# 9P server running on this host with the kernel's own client (v9fs).
#
#   guest.sh --connect unix:/run/x.sock --version 9p2000.L --script test.sh
#   guest.sh --connect tcp:127.0.0.1:5640 --via serial --script test.sh
#   guest.sh --prepare                        (only fetch and build, boot nothing)
#
# Where the server is and how the guest reaches it
#   --connect unix:PATH | tcp:PORT | tcp:HOST:PORT   the server on this host
#   --via net      (default) v9fs trans=tcp to 10.0.2.100:564, which QEMU's user
#                  network hands to the server; one host connection per mount.
#                  The guest's network is otherwise closed (restrict=on).
#   --via user     v9fs trans=tcp to 10.0.2.2, which is the host's loopback, and the
#                  port of --connect tcp:PORT; the guest reaches all of the host
#   --via serial   v9fs trans=fd over a virtio-serial port; QEMU itself connects
#                  to the server. One host connection per port (see --ports),
#                  opened at boot and kept: each mount starts with a Tversion.
# What to mount
#   --version V    9p2000.L (default), 9p2000.u or 9p2000
#   --mount-opts O more mount options, for example msize=65536,access=client
#   --mount DIR    where (default /mnt); --no-mount leaves it to the script
# What to run
#   --script FILE  run by busybox ash as root, in the mounted directory. It has
#                  $MNT, and the commands
#                    mount9p DIR [OPTIONS]      another mount (later options win)
#                    as UID COMMAND...          run a command as another user
#   --add HOST:GUEST   also put this file into the guest (repeatable)
#   --env NAME=VALUE   also set this in the script's environment (repeatable)
#   --input        the script reads what comes on stdin, which must stay open
# The machine
#   --timeout S    for the whole run (default 120)
#   --memory MB    (default 256)     --smp N  (default 1)
#   --accel A      tcg (default) or kvm
#   --ports N      ports for 9P with --via serial (default 4, at most 8: with many
#                  more QEMU loses some of the messages that announce them)
#   --qemu-arg A   one more argument for QEMU (repeatable)
#   --kernel-log F keep the kernel's own console here
#   --cache DIR    kernel and initramfs (default ~/.cache/meta9-guest)
#
# The script's output goes to stdout as it comes. Exit status: the script's own;
# 124 after the time limit, 125 if the guest did not get as far as running it
# (mount failed, or no kernel: its log is then printed), 2 for a wrong command line.
#
# Needs: Debian (made on 12) on amd64, bash and python3. qemu-system-x86 is installed
# with apt-get if it is missing (as root); the packages of the kernel and of busybox
# are only unpacked, into the cache.
set -euo pipefail

die()   { echo "guest.sh: $*" >&2; exit 125; }
usage() { sed -n '2,/^set /{/^#/s/^# \{0,1\}//p}' "$0" >&2; exit 2; }

connect='' via=net version=9p2000.L mount_opts='' mountpoint=/mnt do_mount=1 script=''
timeout=120 memory=256 smp=1 accel=tcg ports=4 kernel_log='' prepare_only=0 input=0
cache=${XDG_CACHE_HOME:-${HOME:-/root}/.cache}/meta9-guest
adds=() envs=() qemu_args=()
while [ $# -gt 0 ]; do
	case $1 in
	--prepare) prepare_only=1; shift; continue ;;
	--no-mount) do_mount=0; shift; continue ;;
	--input) input=1; shift; continue ;;
	-h|--help) usage ;;
	esac
	[ $# -ge 2 ] || usage
	case $1 in
	--connect) connect=$2 ;;        --via) via=$2 ;;
	--version) version=$2 ;;        --mount-opts) mount_opts=$2 ;;
	--mount) mountpoint=$2 ;;       --script) script=$2 ;;
	--add) adds+=("$2") ;;          --env) envs+=("$2") ;;
	--timeout) timeout=$2 ;;        --memory) memory=$2 ;;
	--smp) smp=$2 ;;                --accel) accel=$2 ;;
	--ports) ports=$2 ;;            --qemu-arg) qemu_args+=("$2") ;;
	--kernel-log) kernel_log=$2 ;;  --cache) cache=$2 ;;
	*) usage ;;
	esac
	shift 2
done

# ---------------------------------------------------------------- preparation

# need COMMAND PACKAGE...: install the packages if the command is not there.
need() {
	command -v "$1" >/dev/null && return
	shift
	[ "$(id -u)" = 0 ] || die "install first: $*"
	for _ in 1 2; do
		if DEBIAN_FRONTEND=noninteractive apt-get install -y -q \
			--no-install-recommends "$@" >"$work/apt.log" 2>&1
		then return; fi
		apt-get update -q >"$work/apt.log" 2>&1 || true
	done
	cat "$work/apt.log" >&2
	die "could not install $*"
}

# The modules the guest loads; what they depend on is found below. The cloud
# kernel (linux-image-cloud-amd64) is built without 9P, so it is no use here.
modules='virtio_pci virtio_console virtio_net 9pnet_fd 9pnet_virtio 9p'

# load_order DIR MODULE...: file names under DIR, dependencies first.
load_order() {
	local dir=$1 m deps file; shift
	for m; do
		case " $ordered " in *" $m "*) continue ;; esac
		file=$(find "$dir" -name "$m.ko")
		[ -n "$file" ] || continue      # built into the kernel
		deps=$(tr '\0' '\n' <"$file" | sed -n 's/^depends=//p' | tr , ' ')
		# shellcheck disable=SC2086
		load_order "$dir" $deps
		ordered="$ordered $m"
		echo "$file"
	done
}

# fetch DIR PACKAGE: unpack a package there, or what matches the names after it.
fetch() {
	local dir=$1 package=$2 try; shift 2
	mkdir -p "$work/deb" "$dir"
	rm -f "$work/deb/"*
	for try in 1 2; do
		if (cd "$work/deb" && apt-get download -q "$package" >"$work/apt.log" 2>&1); then
			dpkg-deb --fsys-tarfile "$work/deb/"*.deb | tar -C "$dir" -x --wildcards "$@"
			return
		fi
		[ $try = 2 ] || apt-get update -q >/dev/null 2>&1 || true   # the list is old
	done
	cat "$work/apt.log" >&2
	die "could not download $package"
}

# kernel_package: its name, which has the version in it.
kernel_package() {
	apt-cache depends linux-image-amd64 2>/dev/null |
		sed -n 's/^ *Depends: \(linux-image-[0-9].*\)/\1/p' | head -1
}

# fetch_system OUT: leave OUT/vmlinux, OUT/busybox and OUT/modules/NN-*.ko.
fetch_system() {
	local out=$1 package tree=$work/tree file n=0 ordered=''
	mkdir -p "$out/modules"
	package=$(kernel_package)
	if [ -z "$package" ]; then
		apt-get update -q >/dev/null 2>&1 || true
		package=$(kernel_package)
	fi
	[ -n "$package" ] || die "apt knows no linux-image-amd64"
	fetch "$tree" busybox-static '*/bin/busybox'
	find "$tree" -name busybox -type f -exec cp {} "$out/busybox" \;
	fetch "$tree" "$package" \
		'./boot/vmlinuz-*' './lib/modules/*/kernel/fs' './lib/modules/*/kernel/net/9p' \
		'./lib/modules/*/kernel/net/core' './lib/modules/*/kernel/drivers/virtio' \
		'./lib/modules/*/kernel/drivers/char' './lib/modules/*/kernel/drivers/net/*.ko'
	# shellcheck disable=SC2086
	load_order "$tree/lib/modules" $modules >"$work/order"
	while read -r file; do
		n=$((n + 1))
		cp "$file" "$out/modules/$(printf '%02d' $n)-${file##*/}"
	done <"$work/order"
	# Booting the bare ELF (over PVH) spares the guest unpacking 65 MB itself,
	# which is more than half of the boot under TCG.
	python3 - "$tree"/boot/vmlinuz-* "$out/vmlinux" <<-'PY'
		import lzma, sys, zlib
		image = open(sys.argv[1], 'rb').read()
		kernel = image                      # as a last resort boot the bzImage
		for magic, make in ((b'\xfd7zXZ\0', lzma.LZMADecompressor),
		                    (b'\x1f\x8b\x08', lambda: zlib.decompressobj(31))):
		    at = image.find(magic)
		    if at < 0:
		        continue
		    try:
		        data = make().decompress(image[at:])
		    except (lzma.LZMAError, zlib.error):
		        continue
		    if data[:4] == b'\x7fELF':
		        kernel = data
		        break
		open(sys.argv[2], 'wb').write(kernel)
	PY
	echo "$package" >"$out/package"
}

# pack DIR FILE: an uncompressed initramfs part; the kernel takes several parts
# one after the other.
pack() { (cd "$1" && find . | sort | "$cache/system/busybox" cpio -o -H newc >"$2" 2>/dev/null); }

write_init() {
	cat >"$1" <<-'INIT'
		#!/bin/busybox sh
		/bin/busybox mkdir -p /proc /sys /dev /tmp /mnt /dev/virtio-ports
		/bin/busybox --install -s /bin
		export PATH=/bin HOME=/root
		mount -t proc proc /proc
		mount -t sysfs sys /sys
		mount -t devtmpfs dev /dev
		mount -t tmpfs tmp /tmp
		mount -t debugfs debug /sys/kernel/debug
		chmod 1777 /tmp
		for module in /lib/modules/*.ko; do insmod "$module"; done
		. /run9p/settings
		# Ports turn up one by one after the driver is loaded.
		mkdir -p /dev/virtio-ports
		tries=0
		while [ $(ls /dev/virtio-ports | wc -l) -lt $NP_PORTS ] && [ $tries -lt 100 ]; do
		  for port in /sys/class/virtio-ports/*; do
		    name=$(cat "$port/name" 2>/dev/null) && [ -n "$name" ] &&
		      ln -sf "../${port##*/}" "/dev/virtio-ports/$name"
		  done
		  tries=$((tries + 1))
		  [ $tries = 1 ] || sleep 0.1
		done
		ip link set lo up
		if [ -e /sys/class/net/eth0 ]; then
		  ip addr add 10.0.2.15/24 dev eth0 && ip link set eth0 up
		fi
		# A port opens once at a time.
		if [ $NP_INPUT = 1 ]; then
		  /run9p/main <>/dev/virtio-ports/out >&0 2>&0
		else
		  /run9p/main </dev/null >/dev/virtio-ports/out 2>&1
		fi
		echo $? >/dev/virtio-ports/status
		poweroff -f
	INIT
	chmod 755 "$1"
}

write_tools() {
	local bin=$1
	# With --via serial each mount takes the next port, for that is its
	# connection; -p N names one, so that a test can use one again. v9fs cannot
	# use a virtio-serial port itself (the driver has read but no read_iter), so
	# two cats carry the bytes between the port and a pair of fifos. (It can use
	# a virtio console, /dev/hvcN, as a raw tty. But QEMU throws away what it
	# cannot pass on at once from a console, so that breaks as soon as the server
	# is slower than the guest.) v9fs must get each fifo open in one direction
	# only, or it does not notice that there is room in it again.
	cat >"$bin/mount9p" <<-'TOOL'
		#!/bin/sh
		# mount9p [-p PORT] DIR [OPTIONS]
		port=
		if [ "$1" = -p ]; then port=$2; shift 2; fi
		dir=$1
		options=version=$NP_VERSION${NP_OPTIONS:+,$NP_OPTIONS}${2:+,$2}
		mkdir -p "$dir"
		case $NP_VIA in
		net)
		  exec mount -t 9p -o "trans=tcp,port=564,$options" 10.0.2.100 "$dir" ;;
		user)
		  exec mount -t 9p -o "trans=tcp,port=$NP_PORT,$options" 10.0.2.2 "$dir" ;;
		serial)
		  state=/run9p/ports
		  mkdir -p $state
		  if [ -z "$port" ]; then
		    port=$(cat $state/next 2>/dev/null || echo 0)
		    echo $((port + 1)) >$state/next
		  fi
		  if [ -e $state/$port.pids ]; then     # an earlier mount's: end them
		    kill $(cat $state/$port.pids) 2>/dev/null
		    rm -f $state/$port.*
		    sleep 0.1
		  fi
		  # While the host's end is closed a read says end of file, so wait for it.
		  info=/sys/kernel/debug/virtio-ports/$(readlink "/dev/virtio-ports/9p$port" | sed 's,.*/,,')
		  tries=0
		  until grep -q '^host_connected: 1' "$info" 2>/dev/null; do
		    tries=$((tries + 1))
		    [ $tries -lt 50 ] || { echo "mount9p: no server at the other end of port $port" >&2; exit 1; }
		    sleep 0.1
		  done
		  mkfifo $state/$port.in $state/$port.out
		  exec 5<>"/dev/virtio-ports/9p$port" 6<>$state/$port.in 7<>$state/$port.out || exit
		  cat <&5 >$state/$port.in 2>/dev/null 5<&- 6<&- 7<&- &
		  pids=$!
		  cat <$state/$port.out >&5 2>/dev/null 5<&- 6<&- 7<&- &
		  echo $pids $! >$state/$port.pids
		  exec 3<$state/$port.in 4>$state/$port.out 5<&- 6<&- 7<&-
		  exec mount -t 9p -o "trans=fd,rfdno=3,wfdno=4,$options" "9p$port" "$dir" ;;
		esac
	TOOL
	cat >"$bin/as" <<-'TOOL'
		#!/bin/sh
		# as UID COMMAND...
		uid=$1; shift
		grep -q "^u$uid:" /etc/passwd || {
		  echo "u$uid:x:$uid:$uid::/tmp:/bin/sh" >>/etc/passwd
		  echo "u$uid:x:$uid:" >>/etc/group
		}
		exec su "u$uid" -s /bin/sh -c 'exec "$0" "$@"' "$@"
	TOOL
	chmod 755 "$bin"/mount9p "$bin"/as
}

prepare() {
	need qemu-system-x86_64 qemu-system-x86
	need python3 python3-minimal
	mkdir -p "$cache"
	cache=$(cd "$cache" && pwd)
	# One at a time, and nothing half made is ever left under the final name.
	exec 9>"$cache/lock"
	flock 9
	if [ ! -d "$cache/system" ]; then
		rm -rf "$cache/system.new"
		fetch_system "$cache/system.new"
		mv "$cache/system.new" "$cache/system"
	fi
	local tree=$work/base
	mkdir -p "$tree/bin" "$tree/lib/modules" "$tree/etc" "$tree/root"
	cp "$cache/system/busybox" "$tree/bin/busybox"
	cp "$cache/system/modules/"*.ko "$tree/lib/modules/"
	echo 'root:x:0:0:root:/root:/bin/sh' >"$tree/etc/passwd"
	echo 'root:x:0:' >"$tree/etc/group"
	write_init "$tree/init"
	write_tools "$tree/bin"
	pack "$tree" "$work/base.cpio"
	exec 9>&-
}

work=$(mktemp -d "${TMPDIR:-/tmp}/9p-guest.XXXXXX")
qemu=''
# shellcheck disable=SC2317  # called by the trap
cleanup() {
	[ -z "$qemu" ] || kill "$qemu" 2>/dev/null || true
	rm -rf "$work"
}
trap cleanup EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

if [ $prepare_only = 0 ]; then
	[ -r "$script" ] || { echo "guest.sh: cannot read --script '$script'" >&2; exit 2; }
	case $via in net|serial) ;; user) [ "${connect%%:*}" = tcp ] || usage ;; *) usage ;; esac
	if [ "$ports" -gt 8 ]; then usage; fi
	case $version in 9p2000|9p2000.u|9p2000.L) ;; *) usage ;; esac
fi
prepare
[ $prepare_only = 0 ] || exit 0

# ------------------------------------------------------------- this one run

# QEMU's option syntax doubles a comma inside a value.
comma() { printf '%s' "${1//,/,,}"; }
# A word for the guest's shell.
word() { printf "'%s'" "${1//\'/\'\\\'\'}"; }

case $connect in
unix:*)  chardev="path=$(comma "${connect#unix:}")"; target=(unix "${connect#unix:}") ;;
tcp:*:*) hp=${connect#tcp:}
         chardev="host=${hp%:*},port=${hp##*:}"; target=(tcp "${hp%:*}" "${hp##*:}") ;;
tcp:*)   chardev="host=127.0.0.1,port=${connect#tcp:}"; target=(tcp 127.0.0.1 "${connect#tcp:}") ;;
'')      via=none ;;
*)       usage ;;
esac

link=()
port=''
expect=2        # ports: the script's output and its exit status
case $via in
net)
	# QEMU starts this program for each connection that the guest makes. Its
	# stderr would go to the guest too, so nothing may be written there.
	cat >"$work/relay" <<-'PY'
		import os, socket, sys, threading
		os.dup2(os.open('/dev/null', os.O_WRONLY), 2)
		if sys.argv[1] == 'unix':
		    server = socket.socket(socket.AF_UNIX)
		    server.connect(sys.argv[2])
		else:
		    server = socket.create_connection((sys.argv[2], int(sys.argv[3])))
		    server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
		def down():
		    try:
		        while data := server.recv(65536):
		            view = memoryview(data)
		            while view:
		                view = view[os.write(1, view):]
		    finally:
		        os._exit(0)
		threading.Thread(target=down, daemon=True).start()
		try:
		    while data := os.read(0, 65536):
		        server.sendall(data)
		finally:
		    os._exit(0)
	PY
	printf -v command '%q ' python3 "$work/relay" "${target[@]}"
	# shellcheck disable=SC2054
	link+=(-netdev "user,id=net,restrict=on,guestfwd=tcp:10.0.2.100:564-cmd:$(comma "${command% }")"
	       -device virtio-net-pci,netdev=net,romfile=) ;;
user)
	port=${target[2]}
	link+=(-netdev "user,id=net" -device "virtio-net-pci,netdev=net,romfile=") ;;
serial)
	expect=$((expect + ports))
	for ((i = 0; i < ports; i++)); do
		link+=(-chardev "socket,id=p$i,$chardev,server=off,reconnect=1"
		       -device "virtserialport,bus=vs.0,nr=$((i + 3)),chardev=p$i,name=9p$i")
	done ;;
none)
	do_mount=0 ;;
esac

run=$work/run/run9p
mkdir -p "$run"
cp "$script" "$run/script"
{
	for e in NP_VIA="$via" NP_VERSION="$version" NP_OPTIONS="$mount_opts" \
		NP_PORTS=$expect NP_PORT="$port" NP_INPUT=$input MNT="$mountpoint" ${envs[@]+"${envs[@]}"}; do
		echo "export ${e%%=*}=$(word "${e#*=}")"
	done
} >"$run/settings"
{
	echo '#!/bin/sh'
	if [ $do_mount = 1 ]; then
		# shellcheck disable=SC2016  # for the guest's shell
		echo 'mount9p "$MNT" || { echo "guest: mount failed"; exit 125; }'
		# shellcheck disable=SC2016
		echo 'cd "$MNT" || exit 125'
	fi
	echo 'exec sh /run9p/script'
} >"$run/main"
chmod 755 "$run/main"
for a in ${adds[@]+"${adds[@]}"}; do
	mkdir -p "$work/run$(dirname "${a#*:}")"
	cp "${a%%:*}" "$work/run${a#*:}"
done
pack "$work/run" "$work/run.cpio"
cat "$work/base.cpio" "$work/run.cpio" >"$work/initrd"

: >"$work/status"
# An end of file on its stdin would make QEMU close the script's output port.
if [ $input = 1 ]; then
	exec 8<&0
else
	mkfifo "$work/stdin"
	exec 8<>"$work/stdin"
fi
cpu=max
[ "$accel" != kvm ] || cpu=host
timeout -k 5 "$timeout" qemu-system-x86_64 -M pc -accel "$accel" -cpu $cpu \
	-m "$memory" -smp "$smp" -nodefaults -no-reboot -display none -monitor none \
	-kernel "$cache/system/vmlinux" -initrd "$work/initrd" \
	-append 'console=ttyS0 quiet panic=-1 reboot=t mitigations=off nokaslr' \
	-serial "file:$work/kernel.log" \
	-device virtio-serial-pci,id=vs,max_ports=31 \
	-chardev stdio,id=out,signal=off \
	-device virtserialport,bus=vs.0,nr=1,chardev=out,name=out \
	-chardev "file,id=status,path=$work/status" \
	-device virtserialport,bus=vs.0,nr=2,chardev=status,name=status \
	${link[@]+"${link[@]}"} ${qemu_args[@]+"${qemu_args[@]}"} <&8 &
qemu=$!

wait "$qemu" && ended=0 || ended=$?
qemu=''
[ -z "$kernel_log" ] || cp "$work/kernel.log" "$kernel_log"
status=$(tr -d '\r\n' <"$work/status")
if [ -n "$status" ]; then exit "$status"; fi
echo "guest.sh: no exit status from the guest; the end of its kernel log:" >&2
tail -n 40 "$work/kernel.log" >&2
if [ "$ended" != 124 ] && [ "$ended" != 137 ]; then exit 125; fi
echo "guest.sh: over the time limit of $timeout s" >&2
exit 124
