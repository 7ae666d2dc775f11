"""Debian's cloud-init, a whole data source as at boot: what it makes of what it
finds. Prints it as JSON.

datasource.py smartos lx-brand|kvm PATH FOLDER
datasource.py nocloud|nocloud-net SEED FOLDER, with SEED "" for what is in FOLDER/seed/nocloud
"""
import json
import os
import sys

from cloudinit import helpers
from cloudinit.net import network_state
from cloudinit.sources import DataSourceNoCloud as nocloud
from cloudinit.sources import DataSourceSmartOS as smartos

kind, rest, folder = sys.argv[1], sys.argv[2:-1], sys.argv[-1]
paths = helpers.Paths({"cloud_dir": folder, "run_dir": folder})


class Distro:
    """What NoCloud wants of the machine's."""

    name = "debian"

    def get_primary_arch(self):
        return "amd64"


if kind == "smartos":
    # What a SmartOS guest knows of itself, and where the device is.
    smartos.DataSourceSmartOS.smartos_type = rest[0]
    smartos.LEGACY_USER_D = os.path.join(folder, "db")
    os.makedirs(smartos.LEGACY_USER_D)
    conf = {"metadata_sockfile": rest[1], "serial_device": rest[1], "serial_timeout": 10}
    source = smartos.DataSourceSmartOS({"datasource": {"SmartOS": conf}}, Distro(), paths)
else:
    conf = {"fs_label": None}
    if rest[0]:
        conf["seedfrom"] = rest[0]
    make = nocloud.DataSourceNoCloudNet if kind == "nocloud-net" else nocloud.DataSourceNoCloud
    source = make({"datasource": {"NoCloud": conf}}, Distro(), paths)


def content(*names):
    try:
        with open(os.path.join(folder, *names)) as f:
            return f.read()
    except FileNotFoundError:
        return None


seen = {"found": source._get_data()}
uuid = source.get_instance_id()
seen["instance-id"] = uuid
seen["hostname"] = source.metadata.get("local-hostname")
seen["public-keys"] = source.get_public_ssh_keys()
seen["user-data"] = source.userdata_raw
seen["vendor-data"] = source.vendordata_raw
seen["network"] = source.network_config
if source.network_config:
    state = network_state.parse_net_config_data(source.network_config)
    seen["interfaces"] = [
        {
            "name": i["name"],
            "mac": i.get("mac_address"),
            "addresses": [
                "%s/%s" % (s["address"], s["prefix"])
                for s in i["subnets"]
                if "address" in s
            ],
            "gateways": sorted(
                {r["gateway"] for s in i["subnets"] for r in s.get("routes", []) if r["prefix"] == 0}
                | {s["gateway"] for s in i["subnets"] if "gateway" in s}
            ),
            "dns": sorted(
                {a for s in i["subnets"] for a in s.get("dns_nameservers", [])}
                | set(state.dns_nameservers)
            ),
        }
        for i in state.iter_interfaces()
    ]
if kind == "smartos":
    data = ("instances", uuid, "data")
    seen["user-script"] = content(*data, "user-script")
    seen["operator-script"] = content(*data, "operator-script")
    seen["legacy"] = content("db", "mdata-user-data")
json.dump(seen, sys.stdout, default=bytes.decode)
