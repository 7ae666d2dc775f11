"""cloud-init, both data sources on many VMs in one process: the network that each makes
of a VM. Reads {NAME: {"sock": PATH of the VM's mdata.sock, "folder": of its NoCloud
seed}} on standard input, and prints {NAME: {"smartos": NETWORK, "nocloud": NETWORK}},
or null for a source that has none.

NETWORK is {"interfaces": {NAME: {"mac", "mtu", "addresses"}}, "routes": [[TO, VIA], ...]}.
The SmartOS source hands every route to every interface, and leaves it to the kernel
which of them leads to the gateway; so routes are compared as one set.
"""
import json
import os
import sys
import tempfile

from cloudinit import helpers
from cloudinit.net import network_state
from cloudinit.sources import DataSourceNoCloud as nocloud
from cloudinit.sources import DataSourceSmartOS as smartos


class Distro:
    """What NoCloud wants of the machine's."""

    name = "debian"

    def get_primary_arch(self):
        return "amd64"


def network(source):
    if not source._get_data():
        raise SystemExit("%s finds nothing" % source)
    config = source.network_config
    if not config:
        return None
    state = network_state.parse_net_config_data(config)
    interfaces, routes = {}, set()
    for i in state.iter_interfaces():
        addresses = []
        for s in i["subnets"]:
            if s["type"] == "static" or s["type"] == "static6":
                addresses.append("%s/%s" % (s["address"], s["prefix"]))
            else:
                addresses.append(s["type"])
            for r in s.get("routes", []):
                routes.add(("%s/%s" % (r["network"], r["prefix"]), r["gateway"]))
            if "gateway" in s:
                routes.add(("::/0" if ":" in s["gateway"] else "0.0.0.0/0", s["gateway"]))
        for r in i.get("routes", []):
            routes.add(("%s/%s" % (r["network"], r["prefix"]), r["gateway"]))
        mtu = i.get("mtu")
        interfaces[i["name"]] = {
            "mac": i.get("mac_address"),
            "mtu": mtu and int(mtu),
            "addresses": sorted(addresses),
        }
    return {"interfaces": interfaces, "routes": sorted(routes)}


def run(sock, folder):
    paths = helpers.Paths({"cloud_dir": folder, "run_dir": folder})
    smartos.DataSourceSmartOS.smartos_type = "lx-brand"
    smartos.LEGACY_USER_D = os.path.join(tempfile.mkdtemp(dir=folder), "db")
    conf = {"metadata_sockfile": sock}
    by = {"smartos": smartos.DataSourceSmartOS({"datasource": {"SmartOS": conf}}, Distro(), paths)}
    conf = {"fs_label": None}
    by["nocloud"] = nocloud.DataSourceNoCloud({"datasource": {"NoCloud": conf}}, Distro(), paths)
    return {name: network(source) for name, source in by.items()}


json.dump({name: run(**vm) for name, vm in json.load(sys.stdin).items()}, sys.stdout)
