package payload_test

import (
	"encoding/json"
	"testing"

	"meta9/fs/errs"
	"meta9/fs/vm/payload"
	"meta9/fs/vm/vmtest"
)

func TestValidate(t *testing.T) {
	const image = `"image_uuid":"01b2c898-945f-11e1-a523-af1afbe22822"`
	for _, c := range []struct {
		action    payload.Action
		brand, in string
		want      string // JSON
	}{
		{payload.ForCreate, "joyent", `{"brand":"joyent",` + image + `,"alias":"a","nics":[{"nic_tag":"admin","ip":"dhcp"}],"ram":"512"}`, `{}`},
		{payload.ForCreate, "bhyve", `{"vcpus":1,"vsock_cid":3,"9p_mode":"0640","disks":[{"boot":true,"image_uuid":"01b2c898-945f-11e1-a523-af1afbe22822"}]}`, `{}`},
		{payload.ForCreate, "zeus", `{"x":1}`, `{"bad_brand":"zeus"}`},
		{payload.ForCreate, "lx", `{}`, `{"missing_properties":["brand","image_uuid","kernel_version"]}`},
		{payload.ForCreate, "lx", `{"brand":"lx","image_uuid":"","kernel_version":"4.3"}`, `{"missing_properties":["image_uuid"]}`},
		{
			payload.ForCreate, "kvm", `{"brand":"kvm","hat":1,"quota":1,"bootrom":"x","add_nics":[],"nics":[{"hat":1,"mtu":9000}]}`,
			`{"bad_properties":["hat","bootrom","add_nics","nics.0.hat"]}`,
		},
		{
			payload.ForCreate, "kvm", `{"brand":"oak","ram":"big","vcpus":0,"autoboot":"maybe","vnc_port":-2,"uuid":"x","tags":{"a":[]},"alias":"a\nb",` +
				`"customer_metadata":{"a":{}},"nics":[{"mtu":1,"netmask":"x"},{"ip":"10.0.0.1"},5],"resolvers":{},"routes":{"x":"y"}}`,
			`{"bad_values":["brand","ram","vcpus","autoboot","vnc_port","uuid","tags","alias","customer_metadata.a","nics.0.mtu","nics.1.netmask","nics.2","resolvers","routes"]}`,
		},
		{payload.ForCreate, "kvm", `{"brand":"kvm","nics":[{"interface":"net0"},{"interface":"net0"}]}`, `{"bad_values":["nics.1.interface"]}`},
		{payload.ForCreate, "kvm", `{"brand":"kvm","nics":5}`, `{"bad_values":["nics"]}`},
		{payload.ForUpdate, "kvm", `{"ram":1024,"update_nics":[{"mac":"2:8:20:a:b:c","ip":"10.0.0.1"}],"remove_tags":"a,b","set_tags":{"a":1},"alias":"","quota":null}`, `{}`},
		{
			payload.ForUpdate, "kvm", `{"nics":[],"brand":"kvm","uuid":"x","set_tag":{},"update_disks":[{"path":"/d","image_uuid":"x"}]}`,
			`{"bad_properties":["nics","brand","uuid","set_tag","update_disks.0.image_uuid"]}`,
		},
		{
			payload.ForUpdate, "joyent", `{"add_nics":[{"ip":"10.0.0.1"}],"set_customer_metadata":{"a":null},"set_routes":{"10.0.0.0/8":"x"},"remove_nics":{}}`,
			`{"bad_values":["add_nics.0.netmask","set_customer_metadata.a","routes.10.0.0.0/8","remove_nics"]}`,
		},
		{
			payload.ForUpdate, "joyent", `{"update_nics":[{"mac":"2:8:20:a:b:c","netmask":"x"},{"mac":"2:8:20:a:b:d","ips":["10.0.0.1"]},{"mac":"2:8:20:a:b:e","gateway":"me"}]}`,
			`{"bad_values":["update_nics.0.netmask","update_nics.1.ips.0","update_nics.2.gateway"]}`,
		},
	} {
		r, err := payload.Validate(c.action, c.brand, []byte(c.in))
		if err != nil {
			t.Errorf("%s: %v", c.in, err)
			continue
		}
		if r.OK() != (c.want == `{}`) {
			t.Errorf("%s: OK is %v", c.in, r.OK())
		}
		got, err := json.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		vmtest.Diff(t, c.brand+" "+c.in, string(got), c.want)
	}
	_, err := payload.Validate(payload.ForCreate, "kvm", []byte(`[]`))
	vmtest.WantError(t, err, errs.Invalid, "a VM is a JSON object")
	_, err = payload.Validate(payload.ForUpdate, "", []byte(`{}`))
	vmtest.WantError(t, err, errs.Invalid, "brand: missing")
	vmtest.Diff(t, "brands", payload.Brands(), []string{"bhyve", "builder", "joyent", "joyent-minimal", "kvm", "lx"})
}
