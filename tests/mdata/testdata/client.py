"""Debian's cloud-init, its client of the metadata protocol: get, list, put and
delete through a socket or a serial device. Prints what it saw as JSON.

client.py socket|serial PATH
"""
import json
import sys

from cloudinit.sources import DataSourceSmartOS as smartos

kind, path = sys.argv[1:]
if kind == "socket":
    client = smartos.JoyentMetadataSocketClient(path)
else:
    client = smartos.JoyentMetadataSerialClient(device=path, timeout=10)

seen = {"exists": client.exists()}
with client:
    seen["hostname"] = client.get("hostname")
    seen["keys"] = client.get("root_authorized_keys", strip=True)
    seen["uuid"] = client.get("sdc:uuid")
    seen["nics"] = client.get_json("sdc:nics")
    seen["absent"] = client.get("nope", default="the default")
    seen["empty"] = client.get("empty", default="the default")
    seen["object"] = client.get("sdc:tags", default="the default")
    seen["unicode"] = client.get("unicode")
    seen["list"] = sorted(client.list())
    seen["put"] = client.put("from cloud-init", "line one\nline two\n")
    seen["got"] = client.get("from cloud-init")
    seen["refused"] = client.put("sdc:uuid", "x")
    seen["deleted"] = client.delete("from cloud-init")
    seen["gone"] = client.get("from cloud-init")
# Without a transport of its own each request opens one.
seen["apart"] = [client.get("hostname"), client.get("sdc:alias")]
json.dump(seen, sys.stdout)
