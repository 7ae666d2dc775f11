# What a Debian with systemd does, as a host that has meta9 and meta9d of the version
# before, and then as a guest. A step is a name and a command; what it prints is shown where
# it fails. Exit status 0 says that all was done, and well.
vm=550e8400-e29b-41d4-a716-000000000001
run=/run/meta9
failed=0

step() {
	local name=$1 out
	shift
	if out=$("$@" 2>&1); then
		echo "ok $name"
	else
		failed=1
		echo "$out"
		echo "FAIL $name"
	fi
}
# eventually COMMAND...: for a minute.
eventually() {
	local end=$((SECONDS + 60))
	until "$@" >/dev/null 2>&1; do
		((SECONDS < end)) || { "$@"; return; }
		sleep 0.2
	done
}
# says TEXT COMMAND...: it ends well, and prints the text.
says() {
	local want=$1 out
	shift
	out=$("$@" 2>&1) && [[ $out == *"$want"* ]] || { echo "$*: $out"; return 1; }
}
# is TEXT COMMAND...: it prints that, and nothing else, however it ends.
is() {
	local want=$1 out
	shift
	out=$("$@" 2>&1)
	[[ $out == "$want" ]] || { echo "$*: $out, not $want"; return 1; }
}
# refused COMMAND...: it is there, and fails.
refused() {
	local code=0
	"$@" || code=$?
	((code != 0 && code < 126)) || { echo "$*: exit status $code"; return 1; }
}
units_failed() { systemctl list-units --failed --plain --no-legend | cut -d ' ' -f 1; }
gone() { [[ ! -e $1 && ! -L $1 ]] || { ls -ld "$1"; return 1; }; }
# property NAME [UNIT]
property() { systemctl show --property "$1" --value "${2:-meta9d}"; }
pid() { property MainPID "$@"; }

# status NAME: a line of the daemon's /proc/PID/status.
status() { sed -n "s/^$1:[[:space:]]*//p" "/proc/$(pid)/status"; }
# confined MODE. The bounding set has CHOWN (0), DAC_OVERRIDE (1), FOWNER (3) and
# NET_BIND_SERVICE (10).
confined() {
	is 2 status Seccomp && is 1 status NoNewPrivs && is 000000000000040b status CapBnd && is 000000000000040b status CapEff &&
		is "meta9d ($1)" cat "/proc/$(pid)/attr/current" &&
		says 262144 grep "Max open files" "/proc/$(pid)/limits"
}
# outside: what AppArmor has denied to the daemon, or would have.
outside() { { dmesg; journalctl --no-pager; } | grep -E 'apparmor="(DENIED|ALLOWED)".*profile="meta9d"'; }
# enforce also has the kernel tell when the rule is used by which Go's runtime sees CPUQuota=.
enforce() {
	sed -i -e 's/, complain)/)/' -e 's|^  @{sys}/fs/cgroup/|  audit&|' /etc/apparmor.d/usr.bin.meta9d &&
		grep -q '^  audit .*cpu' /etc/apparmor.d/usr.bin.meta9d && apparmor_parser --replace /etc/apparmor.d/usr.bin.meta9d
}
# quota: it has asked for its part of the CPUs, and was let.
quota() { { dmesg; journalctl --no-pager; } | grep -E 'apparmor="AUDIT".*profile="meta9d".*name="[^"]*/meta9d\.service/cpu\.max"'; }

tls() { says motd meta9 --addr tls:127.0.0.1:564 --cert /etc/meta9/cert.pem --ca /etc/meta9/cert.pem ls names/web0/keys; }
mdata() { meta9 mdata put --dev $run/$vm/mdata.sock m d && says d meta9 mdata get --dev $run/$vm/mdata.sock m; }
figures() {
	exec 5<>/dev/tcp/127.0.0.1/9564 && printf 'GET /metrics HTTP/1.0\r\n\r\n' >&5 && says meta9_build_info cat <&5
}
backup() { rm -f /root/backup && meta9 backup /root/backup && meta9 backup --check /root/backup; }
channels() { says status meta9 qmp --socket $run/qmp.sock query-status && tls && mdata && figures && backup; }
owner() {
	meta9 vm update $vm 9p_owner=anna && eventually is anna stat -c %U $run/$vm/9p.sock &&
		says hello runuser -u anna -- meta9 --addr unix:$run/$vm/9p.sock cat keys/motd
}
color() { says blue meta9 cat names/web0/keys/color; }
killed() {
	local main
	main=$(pid)
	kill -9 "$main"
	eventually color && eventually systemctl is-active meta9d && refused is "$main" pid
}
# wrong: settings that cannot be used are no loop of restarts.
wrong() {
	sed -i '1i nonsense = 1' /etc/meta9d.toml
	refused systemctl restart meta9d && eventually is failed systemctl is-failed meta9d &&
		is 0 property NRestarts && is 2 property ExecMainStatus
	local code=$?
	sed -i 1d /etc/meta9d.toml
	systemctl reset-failed meta9d
	systemctl start meta9d && return $code
}

echo "as a host"
step "the daemon has started with the machine" eventually systemctl is-active meta9d
step "it is confined" confined complain
step "a VM is made" meta9 vm create -f /root/vm.json
step "a key is written" meta9 put names/web0/keys/color blue
step "all channels" channels
step "a member of the group is the admin" says blue runuser -u anna -- meta9 cat names/web0/keys/color
step "who is none is not" refused runuser -u otto -- meta9 cat names/web0/keys/color
step "the VM's sockets are its owner's" owner
step "reload" systemctl reload meta9d
step "it serves after a reload" color
step "AppArmor has nothing to say" refused outside

step "AppArmor enforces" enforce
step "the daemon may have a part of the CPUs" systemctl set-property --runtime meta9d CPUQuota=150%
step "it is confined by that" confined enforce
main=$(pid)
step "upgrade" dpkg --install /new/meta9_*_amd64.deb /new/meta9d_*_amd64.deb
step "it was a live update" says 'upgrades 1' meta9 cat ctl
step "the process is the same" is "$main" pid
step "the version is new" says 'version v0.0.1
' meta9 cat ctl
step "it has looked at its part of the CPUs" eventually quota
step "systemd knows that it runs" eventually is active systemctl is-active meta9d
step "it is confined after the update" confined enforce
step "all channels after the update" channels
step "once more" says serves meta9 upgrade
step "killed, it is started again" killed
step "settings that are wrong" wrong
step "all channels after the restart" channels
step "AppArmor has denied nothing" refused outside

step "systemd's socket" systemctl enable meta9d.socket
step "the daemon stops" systemctl stop meta9d
step "the socket starts" systemctl start meta9d.socket
step "who connects starts the daemon" color
step "its group is the unit's" says blue runuser -u anna -- meta9 cat names/web0/keys/color
cp /usr/bin/meta9d /usr/lib/other
step "a program that the profile does not name" refused meta9 upgrade --binary /usr/lib/other
step "AppArmor has denied it" eventually outside
step "the daemon goes on" color

step "remove" dpkg --remove meta9d
step "the daemon is gone" refused systemctl is-active meta9d
step "nobody answers" refused meta9 cat ctl
step "the data is there" test -s /var/lib/meta9/meta9.db
step "purge" dpkg --purge meta9d meta9
step "the data is gone" gone /var/lib/meta9
step "the sockets are gone" gone $run
step "the units are gone" refused systemctl cat meta9d
step "no link to them is left" is "" find /etc/systemd -lname '*meta9*'

# written VALUE COMMAND...: what is written to a key in the guest is printed in a minute.
written() {
	local value=$1
	shift
	echo "$value" >/metadata/keys/banner && eventually says "$value" "$@"
}
agent() {
	mkdir -p /etc/meta9/agent.d
	cat >/etc/meta9/agent.d/banner.toml <<-END
		command = 'cat /etc/banner >>/run/told'
		[file."/etc/banner"]
		key = "banner"
	END
	echo META9_ADDR=virtio:agent >/etc/default/meta9-agent
	systemctl enable --now meta9-agent && says one cat /etc/banner && says one cat /run/told
}
# unit NAME: it has the credential "password" in /run/NAME.
unit() {
	cat >"/run/systemd/system/$1.service" <<-END
		[Service]
		Type=oneshot
		LoadCredential=password:/run/meta9-credential.sock
		ExecStart=/bin/sh -c 'cat \${CREDENTIALS_DIRECTORY}/password >/run/%p'
	END
}
credential() {
	printf '[unit."app.service"]\npassword = "db"\n' >/etc/meta9/credentials.toml
	echo META9_ADDR=virtio:credential >/etc/default/meta9-credential
	unit app
	unit evil
	systemctl daemon-reload
	systemctl enable --now meta9-credential.socket && systemctl start app && is secret cat /run/app
}
# replugged: the channels go, and come again as at a boot.
replugged() {
	local device
	device=$(basename "$(realpath "/sys/class/virtio-ports/$(basename "$(realpath /dev/virtio-ports/meta9)")/device")")
	echo "$device" >/sys/bus/virtio/drivers/virtio_console/unbind || return
	eventually gone /dev/virtio-ports/meta9 || return
	echo "$device" >/sys/bus/virtio/drivers/virtio_console/bind
}

echo "as a guest"
step "install" dpkg --install /old/meta9-guest_*_amd64.deb
step "udev mounts the metadata" eventually systemctl is-active metadata.mount
step "it is the host's" says "from the host" cat /metadata/keys/motd
step "the agent is for who enables it" refused systemctl is-active meta9-agent
step "the agent is enabled" agent
step "it says how it is" meta9 agent status
step "a key is in its file" written two cat /etc/banner
step "a unit has its credential" credential
step "a unit that may have none does not start" refused systemctl start evil
step "the journal says why" eventually says "unit evil.service may have no credential password" journalctl --no-pager -u meta9-credential
exec 7</metadata/keys/motd
agent=$(pid meta9-agent)
step "upgrade of the guest's" dpkg --install /new/meta9-guest_*_amd64.deb
step "the mount is there" says "from the host" cat /metadata/keys/motd
step "a file that was open, too" says "from the host" cat <&7
exec 7<&-
step "the agent is the new one" refused is "$agent" pid meta9-agent
step "it goes on" written three cat /etc/banner
step "a unit has its credential after that" systemctl start app
step "ports that come again" replugged
step "the mount goes on" written four cat /etc/banner
step "the mount stops" systemctl stop metadata.mount
step "ports that come again without a mount" replugged
step "udev mounts again" eventually systemctl is-active metadata.mount
step "all is as it was" written five cat /etc/banner

step "remove of the guest's" dpkg --remove meta9-guest
step "nothing is mounted" refused mountpoint -q /metadata
step "the agent is gone" refused systemctl is-active meta9-agent
step "the credentials' socket is gone" gone /run/meta9-credential.sock
step "the agent's files stay" says five cat /etc/banner
step "purge of the guest's" dpkg --purge meta9-guest
step "the agent's state is gone" gone /var/lib/meta9-agent
step "no link to units is left" is "" find /etc/systemd -lname '*meta9*'
step "no unit has failed but the one that should" is evil.service units_failed

if ((failed)); then
	journalctl --no-pager --lines 400
fi
exit $failed
